"""Endpoints that speak OpenAI's chat completions: OpenRouter, OpenAI, vLLM, llama.cpp, Ollama, LM Studio."""

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from agentlab.errors import AuthError, LLMTruncatedError, MissingKeyError, RemoteError
from agentlab.llm.config import OpenAICompatProvider
from agentlab.llm.endpoint import host_of
from agentlab.llm.providers import Surroundings
from agentlab.llm.providers import openai_protocol as protocol
from agentlab.llm.transport import Reply, Transport
from agentlab.llm.types import Delta, Request
from agentlab.runs.redact import Redactor

_OPENROUTER = "openrouter.ai"
_KEY_PAGES = {
    _OPENROUTER: "https://openrouter.ai/keys",
    "api.openai.com": "https://platform.openai.com/api-keys",
}
# Only OpenRouter knows these words; others refuse a request that holds them.
_EXTRAS: dict[str, dict[str, Any]] = {_OPENROUTER: {"usage": {"include": True}}}


def build(name: str, provider: OpenAICompatProvider, surroundings: Surroundings) -> "OpenAICompatModel":
    """The factory of the table in `agentlab.llm.providers`."""
    variable = None if provider.api_key is None else provider.api_key[2:-1]
    key = None if variable is None else _key(name, variable, provider.base_url, surroundings)
    transport = Transport(
        provider.base_url, surroundings.timeout, {} if key is None else {"Authorization": f"Bearer {key}"}
    )
    return OpenAICompatModel(
        transport,
        extras=_EXTRAS.get(host_of(provider.base_url), {}),
        redactor=Redactor([key] if key else []),
        key_name=variable,
    )


def _key(name: str, variable: str, base_url: str, surroundings: Surroundings) -> str:
    key = surroundings.env.get(variable, "").strip()
    page = _KEY_PAGES.get(host_of(base_url))
    remedy = (
        f"Put {variable}=... into {surroundings.workspace.root / '.env'} or the environment"
        f"{f' (get a key at {page})' if page else ''}; without a key: --set llm=embedded."
    )
    if not key:
        raise MissingKeyError(f"The provider {name} needs a key, and {variable} is not set.", hint=remedy)
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise MissingKeyError(f"{variable} holds characters that no key has, such as a line break.", hint=remedy)
    return key


class OpenAICompatModel:
    """All models of one endpoint."""

    def __init__(
        self, transport: Transport, *, extras: Mapping[str, Any], redactor: Redactor, key_name: str | None
    ) -> None:
        """`extras` are added to every request; `key_name` is the variable that a refused key came from."""
        self._transport = transport
        self._extras = extras
        self._redactor = redactor
        self._key_name = key_name

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Answer piece by piece; the last piece may hold nothing but the usage."""
        try:
            async with self._transport.post("/chat/completions", protocol.request_body(request, self._extras)) as reply:
                if reply.status != 200:
                    body = await reply.error_body()
                    raise protocol.error_from(reply.status, body, reply.headers, now=time.time())
                async for delta in _deltas(reply):
                    yield delta
        except RemoteError as error:
            raise self._fit_to_show(error) from None

    def _fit_to_show(self, error: RemoteError) -> RemoteError:
        """The error without the key, which some providers quote, and with the next step."""
        error.message = self._redactor.scrub(error.message)
        error.args = (error.message,)
        if isinstance(error, AuthError) and error.hint is None:
            error.hint = f"Check {self._key_name}." if self._key_name else "The endpoint asks for a key: set `api_key`."
        return error

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._transport.close()


async def _deltas(reply: Reply) -> AsyncIterator[Delta]:
    if not reply.is_event_stream:
        yield protocol.parse_document(await reply.document())
        return
    finished = done = False
    async for event in reply.events():
        if event.strip() == protocol.DONE:
            done = True
            reply.ended()
            if not finished:
                yield Delta(finish="stop")
            continue
        piece = protocol.parse_event(event)
        finished = finished or piece.delta.finish is not None
        if piece.begun:
            reply.begun()
        yield piece.delta
    if not (finished or done):
        raise LLMTruncatedError("The answer broke off before its end.")
