"""What a pipeline run did, as its events tell it. A folder may come from anywhere: other shapes are left out."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentlab.pipeline.answer import canonical
from agentlab.runs.events import Event

_STEP = re.compile(r"(?:(?P<item>\d+):)?(?P<stage>[^:@/]+)(?:@(?P<visit>\d+))?")


@dataclass(frozen=True, slots=True)
class TracedCall:
    """A question and its answer. `source` is model, cache or parent; `asked` is `PipelineQuestion.summary()`."""

    id: str
    key: str
    sha: str
    source: str
    asked: Mapping[str, Any]
    answer: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FailedCall:
    """An attempt that brought no answer, and what was tried next (`rung`)."""

    id: str
    kind: str
    message: str
    model: str
    rung: str


@dataclass(frozen=True, slots=True)
class TracedStep:
    """The end of one visit of a stage. `sha` is that of the text it hands on, None when there is none."""

    id: str
    status: str
    sha: str | None
    seconds: float | None
    why: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Trace:
    """Steps and calls by their ids, in the order in which they ended."""

    steps: Mapping[str, TracedStep] = field(default_factory=dict)
    calls: Mapping[str, TracedCall] = field(default_factory=dict)
    failed: tuple[FailedCall, ...] = ()

    def calls_by_step(self) -> dict[str, list[TracedCall]]:
        by_step: dict[str, list[TracedCall]] = {}
        for call in self.calls.values():
            by_step.setdefault(step_of(call.id), []).append(call)
        return by_step

    def of(self, stage: str) -> "Trace":
        """What belongs to a stage, in all its visits and items; or to one step, when `stage` is the id of one."""
        return Trace(
            {id_: step for id_, step in self.steps.items() if _belongs(id_, stage)},
            {id_: call for id_, call in self.calls.items() if _belongs(id_, stage)},
            tuple(call for call in self.failed if _belongs(call.id, stage)),
        )


def trace(events: Iterable[Event]) -> Trace:
    """The newest word of the events on each step and call: a resumed run may tell things again."""
    steps: dict[str, TracedStep] = {}
    calls: dict[str, TracedCall] = {}
    failed: list[FailedCall] = []
    for event in events:
        data = event.data if isinstance(event.data, Mapping) else {}
        id_ = str(event.id)
        match event.type:
            case "call.answered":
                key, sha, source = (_text(data, name) for name in ("key", "sha", "from"))
                calls[id_] = TracedCall(id_, key, sha, source, _mapping(data, "asked"), _mapping(data, "answer"))
            case "call.failed":
                failed.append(FailedCall(id_, *(_text(data, name) for name in ("kind", "message", "model", "rung"))))
            case "stage.finished":
                output_sha, seconds = _text(data, "sha") or None, number_of(data.get("seconds"))
                steps[id_] = TracedStep(id_, _text(data, "status"), output_sha, seconds, _mapping(data, "why"))
    return Trace(steps, calls, tuple(failed))


def step_of(call: str) -> str:
    """The id of the step that a call belongs to."""
    return call.partition("/")[0]


def is_of_aggregation(call: str) -> bool:
    """Whether a judge or the author of a synthesis was asked: `draft/=judge.1`. No model is called so."""
    return call.partition("/")[2].startswith("=")


def stage_of(step: str) -> str:
    """The stage that a step (or call) visits, without item and visit."""
    match = _STEP.match(step)
    return match["stage"] if match else step


def item_of(step: str) -> str:
    """The name of the item that a step (or call) belongs to, such as 0003; empty when there is one input only."""
    match = _STEP.match(step)
    return (match["item"] or "") if match else ""


def number_of(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def _belongs(id_: str, stage: str) -> bool:
    return stage in (step_of(id_), stage_of(id_))


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _mapping(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    try:
        canonical(value)  # NaN is read, but cannot be written into an answer
    except ValueError:
        return {}
    return value if isinstance(value, Mapping) else {}
