"""A checkpoint of transformers as a chat model, with a LoRA adapter if one is named."""

from pathlib import Path

from agentlab import machine
from agentlab.config.workspace import Workspace
from agentlab.errors import ConfigError, MissingFileError
from agentlab.hf.engine import HfConfig, HfEngine
from agentlab.llm.provider_config import HfProvider
from agentlab.llm.providers import Surroundings
from agentlab.llm.providers.local import LocalModel, adapter_place
from agentlab.models import store

_WEIGHTS = "adapter_model.safetensors"


def build(name: str, provider: HfProvider, surroundings: Surroundings) -> LocalModel:
    """The factory of the table in `agentlab.llm.providers`. The worker process starts with the first question."""
    where = f"llm.providers.{name}"
    path = store.find(provider.model_path, surroundings.workspace)
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        raise ConfigError(
            f"{where}.model_path: {path} is no checkpoint folder with config.json and safetensors.",
            hint="`agentlab models import smollm2-135m` makes one of the embedded model; a GGUF file needs "
            "`kind: gguf`.",
        )
    adapter = None if provider.adapter is None else _adapter(where, provider.adapter, surroundings.workspace)
    threads = machine.threads(surroundings.threads, workers=2)  # half of the cores, as for a GGUF file
    engine = HfEngine(HfConfig(path, adapter, threads=threads))
    return LocalModel(engine, seconds=provider.total, grammar=False)


def _adapter(where: str, name: str, workspace: Workspace) -> Path:
    path = adapter_place(name, workspace)
    if not (path / "adapter_config.json").is_file():
        raise MissingFileError(
            f"{where}.adapter: there is no adapter {path}.",
            hint=f"Adapters are folders with adapter_config.json, in {workspace.adapters} or given by their path.",
        )
    if not (path / _WEIGHTS).is_file():
        raise ConfigError(
            f"{where}.adapter: {path} holds no {_WEIGHTS}.",
            hint="Weights in another format may hold code, and are not read; save the adapter again as safetensors.",
        )
    return path
