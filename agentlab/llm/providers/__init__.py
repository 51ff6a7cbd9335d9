"""From a provider of the config to the model that is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentlab.config.workspace import Workspace
from agentlab.llm.config import Timeout
from agentlab.llm.provider_config import EndpointConfig, require_trust
from agentlab.llm.provider_kinds import FACTORIES
from agentlab.llm.types import ChatModel


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What a provider may know besides its own config; `threads` is the config's, see `machine.threads`.

    `engines` are local models by how they are loaded: providers that differ in an adapter only share one.
    """

    env: Mapping[str, str]
    workspace: Workspace
    timeout: Timeout = field(default_factory=Timeout)
    threads: int | None = None
    engines: dict[Any, Any] = field(default_factory=dict)


class Factory(Protocol):
    """Makes the model of a provider, without opening connections or starting processes."""

    def __call__(self, name: str, provider: Any, surroundings: ProviderContext) -> ChatModel:
        """`name` and `provider` are an entry of `providers` in the config.

        Raises:
            MissingKeyError: the variable with its key is not set.
            MissingFileError: its model file is not there.
        """


def build(name: str, provider: Any, surroundings: ProviderContext) -> ChatModel:
    """The model of a provider of the config.

    Raises:
        UnknownNameError: no such kind, here or in a plug-in.
        UntrustedHostError: its key may not go to its host.
        MissingError: its key, file or package is not there.
    """
    factory: Factory = FACTORIES.load(provider.kind)
    if isinstance(provider, EndpointConfig) and provider.key_name is not None:  # before a stranger's code has the key
        require_trust(provider.key_name, provider.base_url, surroundings.env)
    return factory(name, provider, surroundings)
