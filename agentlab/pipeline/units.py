"""Steps as units that are scheduled: the answers of one model in one step, and what becomes of them. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.graph import PipelineStep
from agentlab.pipeline.schedule.types import Job


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work for all inputs."""

    id: str
    step: PipelineStep
    model: str | None  # who is asked; None when nobody is
    whole: bool  # it makes the step's answer from the candidates; else it asks `model` for candidates
    local: bool  # whether the model needs memory here
    needs: frozenset[str]
    calls: int  # how many answers it takes of one input

    def job(self) -> Job:
        return Job(self.id, self.model if self.local else None, self.needs)


def units(steps: Sequence[PipelineStep], config: PipelineConfig) -> tuple[Unit, ...]:
    """The units of all steps, in the order of the steps."""
    return tuple(chain.from_iterable(_of(step, config) for step in steps))


def _of(step: PipelineStep, config: PipelineConfig) -> Iterator[Unit]:
    models = tuple(dict.fromkeys(step.stage.asked_models))
    before = frozenset(f"{need}/=" for need in step.needs)
    for model in models:
        count = step.stage.asked_models.count(model) * step.stage.samples
        local = config.models[model].provider == "gguf"
        yield Unit(f"{step.id}/{model}", step, model, whole=False, local=local, needs=before, calls=count)
    aggregation = step.stage.aggregation
    judge = None if aggregation is None else aggregation.asked
    local = judge is not None and config.models[judge].provider == "gguf"
    needs = frozenset(f"{step.id}/{model}" for model in models)
    yield Unit(f"{step.id}/=", step, judge, whole=True, local=local, needs=needs, calls=0 if judge is None else 1)
