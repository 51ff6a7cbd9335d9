"""What holds for a model in a stage: the stage's word, then the model's overrides, then `defaults`, then ours. Pure."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agentlab.gguf.engine import EngineConfig, KvType
from agentlab.pipeline.config import EngineOptions, PipelineConfig
from agentlab.pipeline.stage_config import Stage

# 128 tokens at a time read as fast as 512 on a CPU, with a quarter of the buffers; flash attention is free there.
_OURS = EngineOptions(
    n_ctx=2048,
    n_ubatch=128,
    n_gpu_layers=0,
    flash_attn=True,
    kv_type="f16",
    temperature=0.0,
    max_tokens=256,
    timeout_s=300.0,
)


@dataclass(frozen=True, slots=True)
class Engine:
    """How a local model is loaded. `gpu_layers` -1 is all; `flash` and `repack` are wishes until `settle`."""

    context: int
    batch: int
    gpu_layers: int
    flash: bool
    kv_type: KvType
    repack: bool = True

    def config(self, path: Path, *, threads: int, memory_bytes: int) -> EngineConfig:
        """The same for the engine. A model must not take the machine down with it: `memory_bytes` bounds it."""
        return EngineConfig(
            path,
            context=self.context,
            threads=threads,
            batch=self.batch,
            gpu_layers=self.gpu_layers,
            flash=self.flash,
            repack=self.repack,
            kv_type=self.kv_type,
            memory_bytes=memory_bytes,
        )

    def plain(self) -> "Engine":
        """Without what may be at fault when the engine dies."""
        return replace(self, flash=self.kv_type != "f16", repack=False)


@dataclass(frozen=True, slots=True)
class Drawing:
    """How an answer is drawn; `top_p` None leaves it to the engine."""

    temperature: float
    top_p: float | None
    max_tokens: int
    seconds: float


def engine_of(config: PipelineConfig, model: str) -> Engine:
    """How a model is loaded."""
    layers = (config.models[model].overrides, config.defaults, _OURS)

    def first(name: str) -> Any:
        return next(value for layer in layers if (value := getattr(layer, name)) is not None)

    return Engine(first("n_ctx"), first("n_ubatch"), first("n_gpu_layers"), first("flash_attn"), first("kv_type"))


def drawing_of(config: PipelineConfig, stage: Stage, model: str) -> Drawing:
    """How a stage's answers are drawn from a model."""
    layers = (stage, config.models[model].overrides, config.defaults, _OURS)

    def first(name: str) -> Any:
        return next((value for layer in layers if (value := getattr(layer, name)) is not None), None)

    return Drawing(first("temperature"), first("top_p"), first("max_tokens"), first("timeout_s"))
