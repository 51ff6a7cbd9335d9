"""Kinds of providers: a table of import strings, and one entry-point group for those of other packages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentlab.config.workspace import Workspace
from agentlab.llm.config import Timeout
from agentlab.llm.types import ChatModel
from agentlab.plugins import Registry

GROUP = "agentlab.providers"

PROVIDERS: dict[str, str] = {
    "anthropic": "agentlab.llm.providers.anthropic:build",
    "gguf": "agentlab.llm.providers.local:gguf",
    "hf": "agentlab.llm.providers.local:hf",
    "openai_compat": "agentlab.llm.providers.openai_compat:build",
    "scripted": "agentlab.llm.providers.scripted:build",
}


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


FACTORIES: Registry[Factory] = Registry("provider kind", GROUP, PROVIDERS)


def build(name: str, provider: Any, surroundings: ProviderContext) -> ChatModel:
    """The model of a provider of the config.

    Raises:
        UnknownNameError: no such kind, here or in a plug-in.
        MissingError: its key, file or package is not there.
    """
    return FACTORIES.load(provider.kind)(name, provider, surroundings)
