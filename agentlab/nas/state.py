"""What a study knows, rebuilt from its events alone. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agentlab.runs.events import Event
from agentlab.search.types import Proposal, Trial, TrialResult, Value

Arm = Literal["shared", "agent", "control"]


def run_id(number: int) -> str:
    """`run_0007`: the name of a trial in events, folders and `agent_state.json`."""
    return f"run_{number:04d}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the evaluator made of a trial. `by` is `rule`, or the model that was asked in the unclear middle."""

    accepted: bool
    reason: str
    by: str = "rule"


@dataclass(frozen=True, slots=True)
class TrialState:
    """One trial, as far as it has come."""

    number: int
    proposal: Proposal
    arm: Arm
    probability: float  # of the agent's arm, when the draw was made
    result: TrialResult | None = None
    decision: Decision | None = None

    @property
    def id(self) -> str:
        """Its name."""
        return run_id(self.number)

    @property
    def value(self) -> float | None:
        """Validation MSE; None before the end or after a failure."""
        return self.result.value if self.result else None


@dataclass(frozen=True, slots=True)
class TestScore:
    """The winner's error on rows that nobody saw before."""

    run_id: str
    mse: float
    mae: float
    __test__ = False  # not a test case, whatever pytest thinks of the name


@dataclass(frozen=True, slots=True)
class StudyState:
    """All trials in their order, the references, and the winner's test score once there is one."""

    trials: tuple[TrialState, ...] = ()
    references: tuple[Mapping[str, Any], ...] = ()
    score: TestScore | None = None

    @property
    def history(self) -> list[Trial]:
        """The trials that have ended and been judged, as proposers see them."""
        return [Trial(t.number, t.proposal, t.result) for t in self.trials if t.result and t.decision]

    @property
    def unfinished(self) -> TrialState | None:
        """The trial a kill has left open."""
        last = self.trials[-1] if self.trials else None
        return last if last and last.decision is None else None

    @property
    def best(self) -> TrialState | None:
        """The trial that was accepted last."""
        accepted = [t for t in self.trials if t.decision and t.decision.accepted]
        return accepted[-1] if accepted else None

    @property
    def lowest(self) -> float | None:
        """The smallest validation error of all judged trials: what the next one is compared with."""
        values = [t.value for t in self.trials if t.decision and t.value is not None]
        return min(values, default=None)


def rebuild(events: Iterable[Event]) -> StudyState:
    """The state after these events. A trial that was proposed twice, because of a kill, counts once."""
    state = _Builder()
    for event in events:
        state.apply(event)
    return StudyState(tuple(state.trials.values()), tuple(state.references), state.score)


@dataclass
class _Builder:
    trials: dict[str, TrialState] = field(default_factory=dict)
    references: list[Mapping[str, Any]] = field(default_factory=list)
    score: TestScore | None = None

    def apply(self, event: Event) -> None:
        data = event.data
        match event.type:
            case "reference.measured":
                self.references.append(data)
            case "trial.proposed":
                proposal = Proposal(params=data["params"], source=data["source"], note=data["note"])
                self.trials[event.id] = TrialState(data["number"], proposal, data["arm"], data["probability"])
            case "trial.finished":
                self._end(event.id, TrialResult("finished", value=data["value"], metrics=data["metrics"]))
            case "trial.failed":
                self._end(event.id, TrialResult("failed", metrics=data["metrics"], error=data["error"]))
            case "decision.made":
                self.trials[event.id] = replace(
                    self.trials[event.id], decision=Decision(data["accepted"], data["reason"], data["by"])
                )
            case "winner.scored":
                self.score = TestScore(run_id=event.id, mse=data["mse"], mae=data["mae"])

    def _end(self, name: str, result: TrialResult) -> None:
        self.trials[name] = replace(self.trials[name], result=result)


def agent_state(state: StudyState) -> dict[str, Any]:
    """`agent_state.json`: test figures stay null for all but the winner."""
    best = state.best
    score = state.score if state.score and best and state.score.run_id == best.id else None
    return {
        "best_run_id": best.id if best else None,
        "runs": [
            {
                "run_id": trial.id,
                "val_mse": trial.value,
                "test_mse": score.mse if score and score.run_id == trial.id else None,
                "accepted": bool(trial.decision and trial.decision.accepted),
                "source": trial.proposal.source,
                "params": dict(trial.proposal.params),
                "error": (trial.result.error or None) if trial.result else None,
            }
            for trial in state.trials
        ],
    }


def changes(params: Mapping[str, Value], default: Mapping[str, Value]) -> dict[str, Value]:
    """What a trial set differently from trial 0."""
    return {name: value for name, value in params.items() if name not in default or default[name] != value}
