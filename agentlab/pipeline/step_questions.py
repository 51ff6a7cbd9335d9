"""The questions of a step: messages from its templates, a seed for every sample. Pure."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from agentlab.errors import ConfigError, GateError, MissingFileError, MissingKeyError, ModelFileError, RemoteError
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.graph import PipelineStep
from agentlab.pipeline.settings import Drawing, drawing_of, shorten_text
from agentlab.pipeline.stage_config import Stage
from agentlab.pipeline.state import PipelineItem
from agentlab.pipeline.templates import compile_template

_SHOWN = 60  # characters of an input that a message shows
# After these another model may be asked, and `on_error` decides when none is left. ConfigError: a template meets an
# answer that lacks what it uses.
FAILURES = (RemoteError, ModelFileError, MissingFileError, MissingKeyError, GateError, ConfigError)

Messages = tuple[tuple[str, str], ...]
Tell = Callable[[str], None]  # hears the text of an answer, piece by piece


@dataclass(frozen=True, slots=True)
class PipelineCall:
    """One question."""

    id: str  # within the run; see `call_id`
    stage: Stage
    models: tuple[str, ...]  # who is asked, and who stands in, in that order
    prompt: Callable[[float], Messages]  # the messages, of the share of the input that they show
    drawings: Mapping[str, Drawing]  # how the answer is drawn from each of the models
    seed: int
    schema: Mapping[str, Any] | None = None
    logprob: bool = False
    stop: tuple[str, ...] = ()  # texts that end the answer


def calls(step: PipelineStep, item: PipelineItem, model: str, config: PipelineConfig) -> Iterator[PipelineCall]:
    """What a step asks one model about an item."""
    stage = step.stage
    models = (model, *(name for name in stage.fallback_models if name != model))
    for number in range(stage.asked_models.count(model) * stage.samples):
        yield PipelineCall(
            id=item.id(call_id(step, model, number)),
            stage=stage,
            models=models,
            prompt=partial(messages, step, item),
            drawings={name: drawing_of(config, stage, name) for name in models},
            seed=seed_of(config.seed, step, number),
            schema=stage.response_schema,
            logprob=stage.aggregation is not None and stage.aggregation.logprobs,
            stop=stage.stop,
        )


def call_id(step: PipelineStep, model: str, number: int) -> str:
    """`draft` when a step asks once; `draft/qwen` and `draft/qwen#2` when it asks several times."""
    if len(step.stage.asked_models) * step.stage.samples == 1:
        return step.id
    return f"{step.id}/{model}" if number == 0 else f"{step.id}/{model}#{number + 1}"


def seed_of(run: int, step: PipelineStep, number: int) -> int:
    """The seed of a sample: the stage's own and those that follow it, or one derived from run, step and number."""
    if step.stage.seed is not None:
        return (step.stage.seed + number) % 2**32
    return derive_seed(run, step.id, number)


def derive_seed(*parts: str | int) -> int:
    """A seed of its own for everything that draws."""
    return int.from_bytes(hashlib.sha256(":".join(map(str, parts)).encode()).digest()[:4], "big")


def messages(step: PipelineStep, item: PipelineItem, keep: float) -> Messages:
    """System and user message of a step, with this share of its input.

    Raises:
        ConfigError: a template cannot be filled in, or the question comes to nothing.
    """
    input_text = item.step_input(step)
    values = item.values(step, shorten_text(input_text, keep))
    system, prompt = (compile_template(source).render(values) for source in (step.stage.system, step.stage.prompt))
    if not prompt.strip():
        reason = f"its input ({' and '.join(step.sources)}) is empty"
        if input_text.strip():
            reason = f"its template renders to an empty prompt for {input_text[:_SHOWN]!r}"
        raise ConfigError(
            f"The prompt of stage {step.stage.id} is empty: {reason}.",
            hint="Use `when` to skip the stage when it has no prompt, or set `on_error`.",
        )
    return (*((("system", system),) if system else ()), ("user", prompt))
