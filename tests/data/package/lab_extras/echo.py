"""A provider that says what it was asked."""

from collections.abc import AsyncIterator
from typing import Literal

from pydantic import Field

from agentlab.llm.provider_config import EndpointConfig
from agentlab.llm.providers import ProviderContext
from agentlab.llm.types import Delta, ModelRequest


class EchoConfig(EndpointConfig):
    """Has `base_url`, `api_key` and `limits`, as every endpoint."""

    kind: Literal["echo"]
    region: str = Field("eu", description="Where it is asked.")
    caps = ("schema",)


class Echo:
    """Implements `ChatModel`."""

    config = EchoConfig

    def __init__(self, name: str, provider: EchoConfig, surroundings: ProviderContext) -> None:
        self._region = provider.region

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta]:
        yield Delta(f"{request.messages[-1].content} ({self._region})", finish="stop")

    async def close(self) -> None:
        pass
