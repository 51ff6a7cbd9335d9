"""Connections that do not stand in each other's way.

The pool of the HTTP library looks at all of its connections whenever one becomes free, so that 64 requests at a time
cost ten times the processor time of one. A request has a client of its own here, which it hands to the next.
"""

from collections.abc import AsyncIterator, Callable

from agentlab.llm.endpoint import is_loopback
from agentlab.llm.provider_config import OpenAICompatProvider, Provider
from agentlab.llm.types import ChatModel, Delta, Request

_MOST = 256


def lanes_of(provider: Provider) -> int:
    """How many clients a provider may have. Those with encryption take long to make; a local model is there once."""
    return _MOST if isinstance(provider, OpenAICompatProvider) and is_loopback(provider.base_url) else 1


class Lanes:
    """One provider behind several clients, each of which serves one request at a time while there are enough."""

    def __init__(self, build: Callable[[], ChatModel], limit: int) -> None:
        """`build` makes a client, without opening connections; at most `limit` are made.

        Raises:
            MissingError: a key or a file is not there.
        """
        self._build, self._limit = build, limit
        self._all = [build()]
        self._free = list(self._all)
        self._turn = 0

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Answer piece by piece."""
        if not self._free and len(self._all) < self._limit:
            self._all.append(self._build())
            self._free.append(self._all[-1])
        alone = bool(self._free)
        model = self._free.pop() if alone else self._shared()
        try:
            async for delta in model.stream(request):
                yield delta
        finally:
            if alone:
                self._free.append(model)

    def _shared(self) -> ChatModel:
        self._turn = (self._turn + 1) % len(self._all)
        return self._all[self._turn]

    async def close(self) -> None:
        """Close all clients."""
        for model in self._all:
            await model.close()
