"""Kinds of providers: a table of import strings, and one entry-point group for those of other packages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, cast

from agentlab.config.workspace import Workspace
from agentlab.errors import BadRequestError, UnknownNameError
from agentlab.llm.config import Timeout
from agentlab.llm.types import ChatModel, EmbeddingModel

GROUP = "agentlab.providers"

PROVIDERS: dict[str, str] = {
    "openai_compat": "agentlab.llm.providers.openai_compat:build",
    "anthropic": "agentlab.llm.providers.anthropic:build",
    "gguf": "agentlab.llm.providers.gguf:build",
    "hf": "agentlab.llm.providers.hf:build",
    "scripted": "agentlab.llm.providers.scripted:build",
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a provider may know besides its own config; `threads` is the config's, see `machine.threads`."""

    env: Mapping[str, str]
    workspace: Workspace
    timeout: Timeout = field(default_factory=Timeout)
    threads: int | None = None


class Factory(Protocol):
    """Makes the model of a provider, without opening connections or starting processes."""

    def __call__(self, name: str, provider: Any, surroundings: Surroundings) -> ChatModel:
        """`name` and `provider` are an entry of `providers` in the config.

        Raises:
            MissingKeyError: the variable with its key is not set.
            MissingFileError: its model file is not there.
        """
        ...


def build(name: str, provider: Any, surroundings: Surroundings) -> ChatModel:
    """The model of a provider of the config.

    Raises:
        UnknownNameError: no such kind, here or in a plug-in.
        MissingError: its key, file or package is not there.
    """
    return _factory(provider.kind)(name, provider, surroundings)


def embedder(model: ChatModel) -> EmbeddingModel:
    """The same provider, for vectors.

    Raises:
        BadRequestError: it makes none.
    """
    if not callable(getattr(model, "embed", None)):
        raise BadRequestError(
            "This provider makes no embeddings.",
            hint="Use a model of a provider of kind openai_compat, such as nomic-embed-text of an Ollama server.",
        )
    return cast(EmbeddingModel, model)


def _factory(kind: str) -> Factory:
    if kind in PROVIDERS:
        module, _, attribute = PROVIDERS[kind].partition(":")
        return getattr(import_module(module), attribute)  # type: ignore[no-any-return] # named by a string
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    plugins = entry_points(group=GROUP)
    if kind not in plugins.names:
        raise UnknownNameError("provider kind", kind, sorted({*PROVIDERS, *plugins.names}))
    return plugins[kind].load()  # type: ignore[no-any-return] # as above
