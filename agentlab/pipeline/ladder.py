"""What is tried next when a local model fails: one rung after another, the least harmful first. Pure.

Making room for it harms nothing, so it comes first; then fewer layers on the GPU, smaller buffers, a cache of fewer
bits and a smaller context, which all may change the last bits of an answer; a new seed and more tokens change the
answer itself. After the last rung the stage's next model is asked.
"""

from dataclasses import dataclass, replace
from math import ceil

from agentlab.errors import AgentlabError, ContextOverflowError, SchemaError, WorkerDiedError
from agentlab.gguf.deaths import at_fault, out_of_memory
from agentlab.pipeline.settings import Engine
from agentlab.pipeline.stage_config import Stage

_LEAST_BATCH, _LEAST_CONTEXT, _PADDING = 32, 256, 256
_LEAST_KEPT = 0.001
_MOST_LAYERS = 64  # how "all" is halved


@dataclass(frozen=True, slots=True)
class Rung:
    """How a question is put, and what was changed last to get here.

    Attributes:
        keep: share of the input that the prompt shows.
        tries: new seeds so far.
        alone: every other model was unloaded.
    """

    engine: Engine
    max_tokens: int
    keep: float = 1.0
    tries: int = 0
    alone: bool = False
    crashed: bool = False
    change: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong. `cut` says that the answer ended at its last token; `trained` is the model's own context."""

    error: AgentlabError
    cut: bool = False
    greedy: bool = False  # the likeliest answer was asked for, which no seed changes
    others: bool = False  # other models are loaded
    trained: int = 0


def next_rung(rung: Rung, failure: Failure, stage: Stage) -> Rung | None:
    """How to try again, None when another model has to."""
    if out_of_memory(failure.error):
        return _smaller(rung, failure)
    match failure.error:
        case ContextOverflowError():
            return _fitting(rung, failure, stage)
        case SchemaError() if failure.cut and rung.max_tokens < 4 * rung.engine.context and rung.tries == 0:
            return replace(rung, max_tokens=2 * rung.max_tokens, tries=1, change="twice the tokens")
        case SchemaError() if rung.tries < 2 and not failure.greedy:
            return replace(rung, tries=rung.tries + 1, change="a new seed")
        case WorkerDiedError() if at_fault(failure.error) and rung.engine != rung.engine.plain():
            return _with(rung, rung.engine.plain(), "plain engine settings")
        case WorkerDiedError() if not rung.crashed:
            return replace(rung, crashed=True, change="a new process")
    return None


def _smaller(rung: Rung, failure: Failure) -> Rung | None:
    engine = rung.engine
    if failure.others and not rung.alone:
        return replace(rung, alone=True, change="no other model loaded")
    if engine.gpu_layers:
        layers = (engine.gpu_layers if engine.gpu_layers > 0 else _MOST_LAYERS) // 2
        return _with(rung, replace(engine, gpu_layers=layers), f"{layers} layers on the GPU")
    if engine.batch > _LEAST_BATCH:
        batch = max(_LEAST_BATCH, engine.batch // 2)
        return _with(rung, replace(engine, batch=batch), f"batches of {batch}")
    if engine.kv_type == "f16":
        return _with(rung, replace(engine, kv_type="q8_0", flash=True, repack=False), "an attention cache of 8 bits")
    if engine.context > _LEAST_CONTEXT:
        context = max(_LEAST_CONTEXT, ceil(engine.context / 2 / _PADDING) * _PADDING)
        return _with(rung, replace(engine, context=context), f"a context of {context}")
    return None


def _fitting(rung: Rung, failure: Failure, stage: Stage) -> Rung | None:
    """A prompt that does not fit: a larger context or a shorter prompt, if the stage allows it."""
    if stage.overflow == "grow" and rung.engine.context < failure.trained:
        context = min(2 * rung.engine.context, failure.trained)
        return _with(rung, replace(rung.engine, context=context), f"a context of {context}")
    if stage.overflow == "truncate" and rung.keep > _LEAST_KEPT:
        return replace(rung, keep=rung.keep * 0.8, change=f"{rung.keep * 0.8:.0%} of the input")
    return None


def _with(rung: Rung, engine: Engine, change: str) -> Rung:
    return replace(rung, engine=engine, change=change)


def shortened(text: str, keep: float) -> str:
    """The beginning and the end of a text, with a mark where its middle was."""
    if keep >= 1:
        return text
    size = int(len(text) * keep)
    return f"{text[: size - size // 2]}\n[...]\n{text[len(text) - size // 2 :]}"
