"""A GGUF file as a chat model, with a GGUF adapter if one is named."""

from pathlib import Path
from shlex import quote

from agentlab import machine
from agentlab.config.workspace import Workspace
from agentlab.errors import ConfigError, MissingFileError
from agentlab.gguf.engine import EngineConfig
from agentlab.gguf.metadata import read
from agentlab.gguf.process import WorkerEngine
from agentlab.gguf.proof import Proofs
from agentlab.llm.provider_config import GgufProvider
from agentlab.llm.providers import Surroundings
from agentlab.llm.providers.local import LocalModel, adapter_place
from agentlab.models import store


def build(name: str, provider: GgufProvider, surroundings: Surroundings) -> LocalModel:
    """The factory of the table in `agentlab.llm.providers`. The worker process starts with the first question."""
    path = store.find(provider.model_path, surroundings.workspace)
    if path.is_dir():
        raise ConfigError(
            f"llm.providers.{name}.model_path: {path} is a folder, not a GGUF file.",
            hint="`agentlab models list` shows the GGUF files that are there; a folder needs `kind: hf`.",
        )
    read(path)  # a broken file is said before any work
    adapter = None if provider.adapter is None else _adapter(name, provider.adapter, surroundings.workspace)
    # half of the cores: a thread that waits for a busy core is ruinous, and the other half may be training
    threads = machine.threads(surroundings.threads, workers=2)
    config = EngineConfig(path, context=provider.context, threads=threads, repack=True, adapter=adapter)
    engine = WorkerEngine(config, Proofs.of(surroundings.workspace))
    return LocalModel(engine, seconds=provider.total, grammar=True)


def _adapter(provider: str, name: str, workspace: Workspace) -> Path:
    path, where = adapter_place(name, workspace), f"llm.providers.{provider}.adapter"
    if path.is_dir():
        raise ConfigError(
            f"{where}: {path} is a folder, and llama.cpp takes a GGUF file.",
            hint=f"`agentlab adapters export {quote(name)} --format gguf --out FILE` makes one; `kind: hf` takes the "
            "folder.",
        )
    found = path if path.suffix == ".gguf" or path.is_file() else path.with_name(f"{path.name}.gguf")
    if not found.is_file():
        raise MissingFileError(
            f"{where}: there is no adapter file {path}.",
            hint=f"`agentlab adapters export NAME --format gguf --out {quote(str(found))}` makes one.",
        )
    return found
