"""A GGUF file as a chat model."""

from agentlab import machine
from agentlab.errors import ConfigError
from agentlab.gguf.engine import EngineConfig
from agentlab.gguf.process import WorkerEngine
from agentlab.llm.provider_config import GgufProvider
from agentlab.llm.providers import Surroundings
from agentlab.llm.providers.local import LocalModel
from agentlab.models import store


def build(name: str, provider: GgufProvider, surroundings: Surroundings) -> LocalModel:
    """The factory of the table in `agentlab.llm.providers`. The worker process starts with the first question."""
    path = store.find(provider.model_path, surroundings.workspace)
    if not path.is_file():
        raise ConfigError(
            f"llm.providers.{name}.model_path: {path} is a folder, not a GGUF file.",
            hint="`agentlab models list` shows the GGUF files that are there; a folder needs `kind: hf`.",
        )
    # half of the cores: a thread that waits for a busy core is ruinous, and the other half may be training
    engine = WorkerEngine(EngineConfig(path, context=provider.context, threads=machine.threads(workers=2)))
    return LocalModel(engine, seconds=provider.total, grammar=True)
