"""What a study knows, rebuilt from its events alone. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from statistics import fmean
from typing import Any, TypeVar

from agentlab.errors import DivergedError, RunUnreadableError
from agentlab.runs.events import Event
from agentlab.search.types import Params, Proposal, Trial, TrialResult, Value
from agentlab.study.events import Arm, Closed, Decision, Proposed, Repeat, ResultBatch, WinnerScores, read
from agentlab.study.terms import StudyTerms

T = TypeVar("T")


def trial_id(number: int) -> str:
    """`run_0007`: the name of a trial in events, folders and `agent_state.json`."""
    return f"run_{number:04d}"


def number_of(name: str) -> int:
    """7 of `run_0007` and of `run_0007-r1`: the trial that a measurement is of."""
    return int(name.removeprefix("run_").partition("-")[0])


@dataclass(frozen=True, slots=True)
class StudyCandidate:
    """A configuration to measure once. The `turn` picks the seed: turn 0 is the study's own.

    `run_0007` is the measurement that ranks trial 7, `run_0007-r1` repeats it with another seed, and `run_0007-f0` is
    one of a finalist. `rung` is how much it may cost: 0 in the search, 1 in the last round. `seed` is known as soon as
    it is handed to an executor.
    """

    name: str
    turn: int
    params: Params
    rung: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TrialState:
    """One trial, as far as it has come. `repeats` are its further measurements that ended, `wanted` how many."""

    number: int
    proposal: Proposal
    arm: Arm
    probability: float  # of the agent's arm, when the draw was made
    result: TrialResult | None = None
    wanted: int = 0
    repeats: Mapping[str, TrialResult] = field(default_factory=dict)
    decision: Decision | None = None
    closes: bool = False  # the last of its batch, which the budget cut short

    @property
    def id(self) -> str:
        return trial_id(self.number)

    @property
    def values(self) -> list[float]:
        if self.result is None or self.result.value is None:
            return []
        return [self.result.value, *(r.value for r in self.repeats.values() if r.value is not None)]

    @property
    def value(self) -> float | None:
        return fmean(self.values) if self.values else None

    @property
    def objectives(self) -> tuple[float, ...]:
        """The mean of each objective; empty in a study of one alone, and where there is no value."""
        objective_vectors = [result.objectives for result in self.ended_results if result.objectives]
        return tuple(map(fmean, zip(*objective_vectors, strict=True)))

    @property
    def ended_results(self) -> list[TrialResult]:
        return [result for result in (self.result, *self.repeats.values()) if result]

    @property
    def loss_reason(self) -> str:
        """Why a measurement was lost to a crash or a limit, which tells nothing of the candidate; else empty.

        A training that diverged, or an objective that is no number, is not lost: the candidate is bad.
        """
        errors = [result.error for result in self.ended_results if not {"traceback", "log"}.isdisjoint(result.metrics)]
        return next((error for error in errors if error and not error.startswith(DivergedError.__name__)), "")

    @property
    def pending(self) -> list[StudyCandidate]:
        """Its measurements that have not ended."""
        if self.result is None:
            return [StudyCandidate(self.id, 0, self.proposal.params)]
        names = {turn: f"{self.id}-r{turn}" for turn in range(1, self.wanted + 1)}
        return [
            StudyCandidate(name, turn, self.proposal.params) for turn, name in names.items() if name not in self.repeats
        ]

    def as_trial(self) -> Trial:
        """As proposers see it; a repeated trial has the mean of its values."""
        result = replace(self.result, value=self.value) if self.result else TrialResult("running")
        return Trial(self.number, self.proposal, result, self.closes)


@dataclass(frozen=True, slots=True)
class RefusedProposal:
    """A proposal that a person turned down. It is not proposed again, and costs no trial."""

    proposal: Proposal


@dataclass(frozen=True, slots=True)
class StudyState:
    """All proposals in their order, measurements of the last round by name, and the winner's figures."""

    entries: tuple[TrialState | RefusedProposal, ...] = ()
    judged: tuple[str, ...] = ()  # trial ids in the order of their decisions
    finals: Mapping[str, TrialResult] = field(default_factory=dict)
    scored: str | None = None  # the trial that the scores are of
    scores: WinnerScores | None = None
    exhausted: bool = False  # nothing is left to try

    @property
    def trials(self) -> list[TrialState]:
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
    def pending(self) -> list[StudyCandidate]:
        """Measurements that have to end before the search can."""
        return list(chain.from_iterable(trial.pending for trial in self.trials if trial.decision is None))

    def amount_spent(self, unit: str) -> float:
        """What the search has cost: the number of `trials`, of `trainings` with all repeats, or the sum of a metric.

        Trials count when they are proposed, the others when a measurement has ended. The last round is not counted.
        """
        if unit == "trials":
            return len(self.trials)
        results = list(chain.from_iterable(trial.ended_results for trial in self.trials))
        if unit == "trainings":
            return len(results)
        return float(sum(result.metrics.get(unit, 0.0) for result in results))

    @property
    def judgeable(self) -> list[TrialState]:
        """Trials that have ended and wait for their decision. The first trial comes first: it measures the noise."""
        waiting = [trial for trial in self.trials if trial.decision is None and not trial.pending]
        if self.trials and self.trials[0].decision is None:
            return [trial for trial in waiting if trial.number == 0]
        return waiting

    @property
    def best(self) -> TrialState | None:
        trials_by_id = {trial.id: trial for trial in self.trials}
        accepted = [trials_by_id[name] for name in self.judged if (d := trials_by_id[name].decision) and d.accepted]
        return accepted[-1] if accepted else None

    @property
    def ranking(self) -> list[TrialState]:
        done = [trial for trial in self.trials if trial.decision and trial.value is not None]
        return sorted(done, key=lambda trial: (trial.value, trial.number))


def rebuild(events: Iterable[Event], figures: Iterable[str] = ()) -> StudyState:
    """The state after these events. A step that was repeated after a kill counts once.

    Events whose id has a slash belong to a study beside this one. `figures` are those that the winner's scores promise.

    Raises:
        RunUnreadableError: an event does not hold what its type promises, or not in this order.
    """
    state = _StateBuilder(tuple(figures))
    for event in events:
        if "/" not in event.id:
            read_undamaged(event, state.apply)
    return state.state()


def read_undamaged(event: Event, reader: Callable[[Event], T]) -> T:
    """What `reader` makes of an event.

    Raises:
        RunUnreadableError: the event does not hold what the reader expects.
    """
    try:
        return reader(event)
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise RunUnreadableError(f"Event {event.seq} ({event.type}) is damaged: {error!r}.") from error


@dataclass
class _StateBuilder:
    figures: tuple[str, ...]
    entries: dict[str, TrialState | RefusedProposal] = field(default_factory=dict)
    judged: dict[str, None] = field(default_factory=dict)
    finals: dict[str, TrialResult] = field(default_factory=dict)
    scored: str | None = None
    scores: WinnerScores | None = None
    exhausted: bool = False

    def apply(self, event: Event) -> None:
        name = event.id
        match read(event):
            case Proposed() as outcome:
                proposal = Proposal(outcome.params, outcome.source, outcome.note)
                self.entries[name] = TrialState(outcome.number, proposal, outcome.arm, outcome.probability)
            case Proposal() as outcome:
                self.entries[name] = RefusedProposal(outcome)
            case TrialResult() as outcome:
                self._end(name, outcome)
            case ResultBatch(results):
                for result_name, result in results.items():
                    self._end(result_name, result)
            case Repeat() as outcome:
                self._change(name, wanted=outcome.count)
            case Decision() as outcome:
                self._change(name, decision=outcome)
                self.judged[name] = None
            case Closed():
                self._change(name, closes=True)
            case WinnerScores() as outcome:
                if lacking := [key for key in self.figures if key not in outcome.figures]:
                    raise KeyError(*lacking)
                self.scored, self.scores = name, outcome
        self.exhausted = self.exhausted or event.type == "search.exhausted"

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
        entries, judged = tuple(self.entries.values()), tuple(self.judged)
        return StudyState(entries, judged, self.finals, self.scored, self.scores, self.exhausted)


def agent_state(state: StudyState, terms: StudyTerms) -> dict[str, Any]:
    """`agent_state.json`: test figures stay null for all but the winner."""
    best = state.scored or (state.best.id if state.best else None)
    test_score = fmean(state.scores.figures[terms.score]) if state.scores else None
    return {
        "best_run_id": best,
        "runs": [
            {
                "run_id": trial.id,
                terms.value: trial.value,
                f"test_{terms.score}": test_score if trial.id == state.scored else None,
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
