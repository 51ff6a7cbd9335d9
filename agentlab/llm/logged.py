"""What is sent to a model and what it says, word for word, for whoever listens to the logger `agentlab.llm`."""

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator

from agentlab.llm.types import ChatModel, Delta, Request
from agentlab.runs.redact import Redactor

LOG = logging.getLogger("agentlab.llm")


class Logged:
    """Implements `ChatModel` around another. Rejected and broken-off answers are heard, too; secrets are masked."""

    def __init__(self, name: str, model: ChatModel, redactor: Redactor) -> None:
        self._name = name
        self._model = model
        self._redactor = redactor

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Pass the answer on, piece by piece."""
        turns = "\n".join(f"[{message.role}]\n{message.content}" for message in request.messages)
        sampling = f"temperature {request.temperature:g}, at most {request.max_tokens} tokens"
        self._say(f"asking {self._name} ({request.model}), {sampling}\n{turns}")
        start, parts, stream = time.perf_counter(), [], self._model.stream(request)
        try:
            async for delta in stream:
                parts.append(delta.text)
                yield delta
        finally:
            self._say(f"{self._name} said, within {time.perf_counter() - start:.2f} s\n{''.join(parts)}")
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    async def close(self) -> None:
        """Close the other."""
        await self._model.close()

    def _say(self, text: str) -> None:
        LOG.debug("%s", self._redactor.scrub(text))
