"""The events of a study, typed: `emit` writes them into its run, `read` gives them back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from agentlab.runs.branch import RunBranch
from agentlab.runs.events import Event
from agentlab.runs.run import OpenRun
from agentlab.search.types import Params, Proposal, TrialResult

Arm = Literal["shared", "agent", "control"]


@dataclass(frozen=True, slots=True)
class Branched:
    """A paired study begins, or goes on."""

    seed: int
    agent: bool
    trials: int
    place: int
    of: int


@dataclass(frozen=True, slots=True)
class Proposed:
    """A new trial. `probability` is that of the agent's arm when the draw was made."""

    number: int
    params: Params
    source: str
    note: str
    arm: Arm
    probability: float


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a model said of a near tie: whether its gain over the mean `beat` will last when measured again."""

    model: str
    lasts: bool
    beat: float


@dataclass(frozen=True, slots=True)
class Repeat:
    """Measure the trial again, with so many other seeds, before deciding. `opinion` is what a model said, if asked."""

    reason: str
    count: int = 1
    opinion: Opinion | None = None  # absent in runs of earlier versions


@dataclass(frozen=True, slots=True)
class Decision:
    """What the evaluator made of a trial. `by` is `rule`; in runs of earlier versions it may be a model."""

    accepted: bool
    reason: str
    by: str = "rule"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why nothing is left to try, or why a measurement begins again in a new process."""

    reason: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The trial is the last of its batch: the budget had no room for another."""


@dataclass(frozen=True, slots=True)
class WinnerScores:
    """The winner's figures on data that nobody saw before: of each of its measurements, or their means."""

    names: tuple[str, ...]
    figures: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResultBatch:
    """How all measurements of a batch ended, by their names."""

    results: Mapping[str, TrialResult]


Told = ResultBatch | Branched | Closed | Proposed | Proposal | TrialResult | Repeat | Decision | Reason | WinnerScores

_TYPES: dict[str, Any] = {
    "study.branched": Branched,
    "trial.proposed": Proposed,
    "proposal.refused": Proposal,
    "decision.made": Decision,
    "search.exhausted": Reason,
    "batch.closed": Closed,
    "trial.retried": Reason,
}


def _field_names(kind: Any) -> list[str]:
    return [item.name for item in fields(kind)]


_NAMES = {kind: _field_names(kind) for kind in _TYPES.values()}


def emit(run: OpenRun | RunBranch, type: str, id: str, outcome: Told, **extra: object) -> None:  # noqa: A002 - the event's fields
    """Append an event; `extra` is for readers of the file and not read back."""
    match outcome:
        case TrialResult():
            extra |= _result_data(outcome)
        case ResultBatch():
            for name, result in outcome.results.items():
                extra[name] = {"status": result.status, **_result_data(result)}
        case WinnerScores():
            extra |= {"names": list(outcome.names), **{name: list(values) for name, values in outcome.figures.items()}}
        case _:
            extra = asdict(outcome) | extra
    run.emit(type, id, **extra)


def read(event: Event) -> Told | None:
    """What an event tells; None if it is of another type.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it does not hold what its type promises.
    """
    data = event.data
    match event.type:
        case "trial.finished" | "trial.failed":
            return _result(event.type.removeprefix("trial."), data)
        case "batch.finished":
            return ResultBatch({name: _result(entry["status"], entry) for name, entry in data.items()})
        case "repeat.wanted":
            opinion_data = data.get("opinion")
            return Repeat(data["reason"], data["count"], Opinion(**opinion_data) if opinion_data else None)
        case "winner.scored":
            figures = {key: tuple(values) for key, values in data.items()}
            return WinnerScores(figures.pop("names"), figures)
    kind = _TYPES.get(event.type)
    return kind and kind(**{name: data[name] for name in _NAMES[kind]})


def results(event: Event) -> Mapping[str, TrialResult]:
    """The measurements that ended with an event, by their names. Errors: see `read`."""
    outcome = read(event)
    if isinstance(outcome, ResultBatch):
        return outcome.results
    return {event.id: outcome} if isinstance(outcome, TrialResult) else {}


def _result_data(result: TrialResult) -> dict[str, Any]:
    metrics = dict(result.metrics)
    if result.status != "finished":
        return {"error": result.error, "metrics": metrics}
    lists = {name: list(values) for name in ("objectives", "items") if (values := getattr(result, name))}
    return {"value": result.value, "metrics": metrics, **lists}


def _result(status: str, data: Mapping[str, Any]) -> TrialResult:
    if status == "failed":
        return TrialResult("failed", metrics=data["metrics"], error=data["error"])
    objectives, items = (tuple(data.get(name, ())) for name in ("objectives", "items"))
    return TrialResult("finished", data["value"], data["metrics"], objectives=objectives, items=items)
