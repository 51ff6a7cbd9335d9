"""What a study knows, rebuilt from its events alone. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Literal

from agentlab.errors import RunUnreadableError
from agentlab.runs.events import Event
from agentlab.search.types import Params, Proposal, Trial, TrialResult, Value

Arm = Literal["shared", "agent", "control"]


def run_id(number: int) -> str:
    """`run_0007`: the name of a trial in events, folders and `agent_state.json`."""
    return f"run_{number:04d}"


@dataclass(frozen=True, slots=True)
class Training:
    """One training of a configuration. The `turn` picks its seed: turn 0 is the study's own.

    `run_0007` is the training that ranks trial 7, `run_0007-r1` repeats it with another seed, and `run_0007-f0` is a
    training of a finalist at full budget.
    """

    name: str
    turn: int
    params: Params


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a model said of a near tie: whether its gain over the mean error `beat` will last when trained again."""

    model: str
    lasts: bool
    beat: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What the evaluator made of a trial. `by` is `rule`; in runs of earlier versions it may be a model."""

    accepted: bool
    reason: str
    by: str = "rule"


@dataclass(frozen=True, slots=True)
class TrialState:
    """One trial, as far as it has come. `repeats` are the ended repetitions of its training, `wanted` how many."""

    number: int
    proposal: Proposal
    arm: Arm
    probability: float  # of the agent's arm, when the draw was made
    result: TrialResult | None = None
    wanted: int = 0
    repeats: Mapping[str, TrialResult] = field(default_factory=dict)
    decision: Decision | None = None

    @property
    def id(self) -> str:
        """Its name."""
        return run_id(self.number)

    @property
    def values(self) -> list[float]:
        """Validation MSE of every training that finished; empty if the first one failed."""
        if self.result is None or self.result.value is None:
            return []
        return [self.result.value, *(r.value for r in self.repeats.values() if r.value is not None)]

    @property
    def value(self) -> float | None:
        """Mean validation MSE of its trainings; None before the end or after a failure."""
        return fmean(self.values) if self.values else None

    @property
    def open(self) -> list[Training]:
        """Its trainings that have not ended."""
        if self.result is None:
            return [Training(self.id, 0, self.proposal.params)]
        names = {turn: f"{self.id}-r{turn}" for turn in range(1, self.wanted + 1)}
        return [Training(name, turn, self.proposal.params) for turn, name in names.items() if name not in self.repeats]

    def as_trial(self) -> Trial:
        """As proposers see it; a repeated trial has the mean of its errors."""
        if self.result is None:
            return Trial(self.number, self.proposal, TrialResult("running"))
        return Trial(self.number, self.proposal, replace(self.result, value=self.value))


@dataclass(frozen=True, slots=True)
class Refused:
    """A proposal that a person turned down. It is not proposed again, and costs no trial."""

    proposal: Proposal


@dataclass(frozen=True, slots=True)
class Scores:
    """The winner's errors on rows that nobody saw before, one entry per training of it; the rest are their means."""

    run_id: str
    names: tuple[str, ...]
    mse: tuple[float, ...]
    mae: tuple[float, ...]
    mse_by_step: tuple[float, ...]
    mse_by_channel: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class StudyState:
    """All proposals in their order, further trainings by name, the references, and the winner's test errors."""

    entries: tuple[TrialState | Refused, ...] = ()
    judged: tuple[str, ...] = ()  # trial ids in the order of their decisions
    finals: Mapping[str, TrialResult] = field(default_factory=dict)
    references: tuple[Mapping[str, Any], ...] = ()
    scores: Scores | None = None
    exhausted: bool = False  # nothing is left to try
    seconds: float = 0.0  # of training, the finalists' not counted

    @property
    def trials(self) -> list[TrialState]:
        """The trials by their number."""
        return [entry for entry in self.entries if isinstance(entry, TrialState)]

    @property
    def history(self) -> list[Trial]:
        """Every proposal so far, as proposers see it. A refused one reads as a failure: keep away from it."""
        refused = TrialResult("failed", error="turned down by a person")
        return [
            entry.as_trial() if isinstance(entry, TrialState) else Trial(-1, entry.proposal, refused)
            for entry in self.entries
        ]

    @property
    def open(self) -> list[Training]:
        """Trainings that have to end before the search can."""
        return [training for trial in self.trials if trial.decision is None for training in trial.open]

    @property
    def judgeable(self) -> list[TrialState]:
        """Trials that have ended and wait for their decision. The first trial comes first: it measures the noise."""
        waiting = [trial for trial in self.trials if trial.decision is None and not trial.open]
        if self.trials and self.trials[0].decision is None:
            return [trial for trial in waiting if trial.number == 0]
        return waiting

    @property
    def best(self) -> TrialState | None:
        """The trial that was accepted last."""
        found = {trial.id: trial for trial in self.trials}
        accepted = [found[name] for name in self.judged if (d := found[name].decision) and d.accepted]
        return accepted[-1] if accepted else None

    @property
    def ranked(self) -> list[TrialState]:
        """The judged trials that finished, lowest error first."""
        done = [trial for trial in self.trials if trial.decision and trial.value is not None]
        return sorted(done, key=lambda trial: (trial.value, trial.number))


def rebuild(events: Iterable[Event]) -> StudyState:
    """The state after these events. A step that was repeated after a kill counts once.

    Events whose id has a slash belong to a study beside this one.

    Raises:
        RunUnreadableError: an event does not hold what its type promises, or not in this order.
    """
    state = _Builder()
    for event in events:
        if "/" not in event.id:
            try:
                state.apply(event)
            except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
                raise RunUnreadableError(f"Event {event.seq} ({event.type}) is damaged: {error!r}.") from error
    return state.state()


@dataclass
class _Builder:
    entries: dict[str, TrialState | Refused] = field(default_factory=dict)
    judged: dict[str, None] = field(default_factory=dict)
    finals: dict[str, TrialResult] = field(default_factory=dict)
    references: list[Mapping[str, Any]] = field(default_factory=list)
    scores: Scores | None = None
    exhausted: bool = False

    def apply(self, event: Event) -> None:
        data = event.data
        match event.type:
            case "reference.measured":
                self.references.append(data)
            case "trial.proposed":
                proposal = Proposal(params=data["params"], source=data["source"], note=data["note"])
                self.entries[event.id] = TrialState(data["number"], proposal, data["arm"], data["probability"])
            case "proposal.refused":
                proposal = Proposal(params=data["params"], source=data["source"], note=data["note"])
                self.entries[event.id] = Refused(proposal)
            case "trial.finished":
                self._end(event.id, TrialResult("finished", value=data["value"], metrics=data["metrics"]))
            case "trial.failed":
                self._end(event.id, TrialResult("failed", metrics=data["metrics"], error=data["error"]))
            case "repeat.wanted":
                self._change(event.id, wanted=data["count"])
            case "decision.made":
                self._change(event.id, decision=Decision(data["accepted"], data["reason"], data["by"]))
                self.judged[event.id] = None
            case "search.exhausted":
                self.exhausted = True
            case "winner.scored":
                self.scores = Scores(event.id, **{key: tuple(values) for key, values in data.items()})

    def _change(self, name: str, **changes: Any) -> None:
        trial = self.entries[name]
        assert isinstance(trial, TrialState)
        self.entries[name] = replace(trial, **changes)

    def _end(self, name: str, result: TrialResult) -> None:
        trial, _, turn = name.partition("-")
        if turn.startswith("f"):
            self.finals[name] = result
        elif turn:
            entry = self.entries[trial]
            assert isinstance(entry, TrialState)
            self._change(trial, repeats={**entry.repeats, name: result})
        else:
            self._change(name, result=result)

    def state(self) -> StudyState:
        ended = [
            result
            for entry in self.entries.values()
            if isinstance(entry, TrialState)
            for result in (entry.result, *entry.repeats.values())
            if result
        ]
        return StudyState(
            entries=tuple(self.entries.values()),
            judged=tuple(self.judged),
            finals=self.finals,
            references=tuple(self.references),
            scores=self.scores,
            exhausted=self.exhausted,
            seconds=sum(result.metrics.get("seconds", 0.0) for result in ended),
        )


def agent_state(state: StudyState) -> dict[str, Any]:
    """`agent_state.json`: test figures stay null for all but the winner."""
    scores = state.scores
    best = scores.run_id if scores else state.best.id if state.best else None
    return {
        "best_run_id": best,
        "runs": [
            {
                "run_id": trial.id,
                "val_mse": trial.value,
                "test_mse": fmean(scores.mse) if scores and scores.run_id == trial.id else None,
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
