"""What holds for a model in a stage, and what is tried next when a local one fails. Pure.

The stage's word comes first, then the model's overrides, then `defaults`, then ours.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from agentlab.errors import AgentlabError, ContextOverflowError, SchemaError, WorkerDiedError
from agentlab.gguf.engine import EngineConfig, KvType
from agentlab.gguf.worker_errors import at_fault, out_of_memory
from agentlab.pipeline.config import EngineOptions, PipelineConfig
from agentlab.pipeline.stage_config import Sampling, Stage

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
_LEAST_BATCH, _LEAST_CONTEXT, _PADDING = 32, 256, 256
_LEAST_KEPT = 0.001
_MOST_LAYERS = 64  # how "all" is halved


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
    setting = partial(_first_setting, (config.models[model].overrides, config.defaults, _OURS))
    return Engine(
        setting("n_ctx"), setting("n_ubatch"), setting("n_gpu_layers"), setting("flash_attn"), setting("kv_type")
    )


def drawing_of(config: PipelineConfig, stage: Stage, model: str) -> Drawing:
    """How a stage's answers are drawn from a model."""
    setting = partial(_first_setting, (stage, config.models[model].overrides, config.defaults, _OURS))
    return Drawing(setting("temperature"), setting("top_p"), setting("max_tokens"), setting("timeout_s"))


def _first_setting(layers: Iterable[Sampling], name: str) -> Any:
    return next((value for layer in layers if (value := getattr(layer, name)) is not None), None)


@dataclass(frozen=True, slots=True)
class Rung:
    """How a question is put."""

    engine: Engine
    max_tokens: int
    keep: float = 1.0  # share of the input that the prompt shows
    tries: int = 0  # new seeds so far
    alone: bool = False  # every other model was unloaded
    crashed: bool = False
    change: str = ""  # what was changed last to get here


@dataclass(frozen=True, slots=True)
class RungFailure:
    """What went wrong."""

    error: AgentlabError
    cut: bool = False  # the answer ended at its last token
    greedy: bool = False  # the likeliest answer was asked for, which no seed changes
    others: bool = False  # other models are loaded
    trained: int = 0  # the model's own context


def next_rung(rung: Rung, failure: RungFailure, stage: Stage) -> Rung | None:
    """How to try again, the least harmful way first; None when another model has to.

    Making room for it harms nothing, so it comes first; then fewer layers on the GPU, smaller buffers, a cache of fewer
    bits and a smaller context, which all may change the last bits of an answer; a new seed and more tokens change the
    answer itself.
    """
    if out_of_memory(failure.error):
        return _smaller(rung, failure)
    match failure.error:
        case ContextOverflowError():
            return _fitting(rung, failure, stage)
        case SchemaError() if failure.cut and rung.max_tokens < 4 * rung.engine.context and rung.tries == 0:
            return replace(rung, max_tokens=2 * rung.max_tokens, tries=1, change="twice as many tokens")
        case SchemaError() if rung.tries < 2 and not failure.greedy:
            return replace(rung, tries=rung.tries + 1, change="a new seed")
        case WorkerDiedError() if at_fault(failure.error) and rung.engine != rung.engine.plain():
            return _with(rung, rung.engine.plain(), "default engine settings")
        case WorkerDiedError() if not rung.crashed:
            return replace(rung, crashed=True, change="a new process")
    return None


def _smaller(rung: Rung, failure: RungFailure) -> Rung | None:
    engine = rung.engine
    if failure.others and not rung.alone:
        return replace(rung, alone=True, change="no other model loaded")
    if engine.gpu_layers:
        layers = (engine.gpu_layers if engine.gpu_layers > 0 else _MOST_LAYERS) // 2
        return _with(rung, replace(engine, gpu_layers=layers), f"{layers} GPU layers")
    if engine.batch > _LEAST_BATCH:
        batch = max(_LEAST_BATCH, engine.batch // 2)
        return _with(rung, replace(engine, batch=batch), f"batch size {batch}")
    if engine.kv_type == "f16":
        return _with(rung, replace(engine, kv_type="q8_0", flash=True, repack=False), "an 8-bit KV cache")
    if engine.context > _LEAST_CONTEXT:
        context = max(_LEAST_CONTEXT, ceil(engine.context / 2 / _PADDING) * _PADDING)
        return _with(rung, replace(engine, context=context), f"a context of {context}")
    return None


def _fitting(rung: Rung, failure: RungFailure, stage: Stage) -> Rung | None:
    """A prompt that does not fit: a larger context or a shorter prompt, if the stage allows it."""
    if stage.overflow == "grow" and rung.engine.context < failure.trained:
        context = min(2 * rung.engine.context, failure.trained)
        return _with(rung, replace(rung.engine, context=context), f"a context of {context}")
    if stage.overflow == "truncate" and rung.keep > _LEAST_KEPT:
        return replace(rung, keep=rung.keep * 0.8, change=f"{rung.keep * 0.8:.0%} of the input")
    return None


def _with(rung: Rung, engine: Engine, change: str) -> Rung:
    return replace(rung, engine=engine, change=change)


def shorten_text(text: str, keep: float) -> str:
    """The beginning and the end of a text, with a mark where its middle was."""
    if keep >= 1:
        return text
    size = int(len(text) * keep)
    return f"{text[: size - size // 2]}\n[...]\n{text[len(text) - size // 2 :]}"
