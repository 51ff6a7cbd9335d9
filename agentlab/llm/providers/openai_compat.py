"""Endpoints that speak OpenAI's chat completions: OpenRouter, OpenAI, vLLM, llama.cpp, Ollama, LM Studio."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from agentlab.errors import BadRequestError
from agentlab.llm.endpoint import host_of
from agentlab.llm.provider_config import OpenAICompatProvider
from agentlab.llm.providers import Surroundings, openai_embeddings
from agentlab.llm.providers.openai_protocol import ChatReader
from agentlab.llm.providers.openai_request import REFUSABLE, request_body
from agentlab.llm.providers.remote import Endpoint, key_of
from agentlab.llm.transport import Transport
from agentlab.llm.types import Delta, Embeddings, Request, Usage

# Only OpenRouter knows these words; others refuse a request that holds them.
_EXTRAS: dict[str, dict[str, Any]] = {"openrouter.ai": {"usage": {"include": True}}}


def build(name: str, provider: OpenAICompatProvider, surroundings: Surroundings) -> "OpenAICompatModel":
    """The factory of the table in `agentlab.llm.providers`."""
    key = key_of(name, provider, surroundings)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    transport = Transport(provider.base_url, surroundings.timeout, headers)
    endpoint = Endpoint(transport, key=key, key_name=provider.key_name, refusable=REFUSABLE)
    return OpenAICompatModel(endpoint, extras=_EXTRAS.get(host_of(provider.base_url), {}))


class OpenAICompatModel:
    """All models of one endpoint."""

    def __init__(self, endpoint: Endpoint, *, extras: Mapping[str, Any]) -> None:
        """`extras` are added to every chat request."""
        self._endpoint = endpoint
        self._extras = extras

    def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Answer piece by piece; the last piece may hold nothing but the usage."""
        return self._endpoint.chat("/chat/completions", request_body(request, self._extras), ChatReader())

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """The vectors of all texts, asked for in batches.

        Raises:
            BadRequestError: more texts than one call takes.
            RemoteError: as of `stream`.
        """
        if len(texts) > openai_embeddings.MOST_TEXTS:
            raise BadRequestError(
                f"{len(texts)} texts are more than one call takes.", hint=f"At most {openai_embeddings.MOST_TEXTS}."
            )
        vectors: list[tuple[float, ...]] = []
        usage = Usage()
        for start in range(0, len(texts), openai_embeddings.BATCH):
            batch = texts[start : start + openai_embeddings.BATCH]
            async with self._endpoint.post("/embeddings", openai_embeddings.request_body(model, batch)) as reply:
                part = openai_embeddings.parse(await reply.document(), len(batch))
            vectors += part.vectors
            usage += part.usage
        openai_embeddings.check_one_length(vectors)
        return Embeddings(tuple(vectors), usage)

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._endpoint.close()
