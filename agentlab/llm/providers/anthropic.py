"""Anthropic's own Messages API: its OpenAI-compatible layer ignores response formats."""

from collections.abc import AsyncIterator

from agentlab.llm.provider_config import AnthropicProvider
from agentlab.llm.providers import Surroundings
from agentlab.llm.providers.anthropic_protocol import MessageReader
from agentlab.llm.providers.anthropic_request import REFUSABLE, request_body
from agentlab.llm.providers.remote import Endpoint, key_of
from agentlab.llm.transport import Transport
from agentlab.llm.types import Delta, Request

_VERSION = "2023-06-01"


def build(name: str, provider: AnthropicProvider, surroundings: Surroundings) -> "AnthropicModel":
    """The factory of the table in `agentlab.llm.providers`."""
    key = key_of(name, provider, surroundings)
    headers = {"anthropic-version": _VERSION} | ({} if key is None else {"x-api-key": key})
    transport = Transport(provider.base_url, surroundings.timeout, headers)
    return AnthropicModel(Endpoint(transport, key=key, key_name=provider.key_name, refusable=REFUSABLE))


class AnthropicModel:
    """All models of one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Answer piece by piece. There is no seed: two answers to one question may differ."""
        return self._endpoint.chat("/v1/messages", request_body(request), MessageReader())

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._endpoint.close()
