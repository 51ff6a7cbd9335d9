"""The last round of a study: the best few trials once more, at full budget and with several fresh seeds.

The search compares trials by one rough training each, and the lowest of many is low by luck, too. So whoever leads is
trained with seeds that the search has not used. Where its mean then lies above what another trial has shown, that one
enters, too, until the lead holds or no more trials may enter. The winner is the lowest mean of fresh trainings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from statistics import fmean

from agentlab.nas.config import FinalsConfig
from agentlab.nas.state import StudyState, Training, TrialState
from agentlab.search.types import Params, TrialResult

_FIRST_TURN = 1_000  # beyond every repetition in the search


@dataclass(frozen=True, slots=True)
class Finalist:
    """A trial in the last round, with the trainings that stand for it and how they ended."""

    trial: TrialState
    trainings: tuple[Training, ...]
    results: Mapping[str, TrialResult]

    @property
    def values(self) -> dict[str, float]:
        """Validation MSE of each training that finished, by its name."""
        return {name: result.value for name, result in self.results.items() if result.value is not None}

    @property
    def failed(self) -> int:
        """Trainings that ended without a value."""
        return len(self.results) - len(self.values)

    @property
    def missing(self) -> list[Training]:
        """Trainings that have not ended."""
        return [training for training in self.trainings if training.name not in self.results]

    def with_results(self, known: Mapping[str, TrialResult]) -> "Finalist":
        """The same with those of these results that are its own."""
        own = {training.name: known[training.name] for training in self.trainings if training.name in known}
        return replace(self, results={**self.results, **own})

    @property
    def mean(self) -> float | None:
        """Mean validation MSE; None if no training has finished."""
        return fmean(self.values.values()) if self.values else None

    @property
    def standing(self) -> tuple[int, float]:
        """Lower is better: failures first, since a lucky seed is no evidence; then the error, as far as it is known.

        That is the mean of the fresh trainings, or until all of them have ended what the search has measured.
        """
        known = self.trial.value if self.missing else self.mean
        return self.failed, inf if known is None else known


def most(count: int, trials: int) -> int:
    """How many trials may enter a last round of `count`: the more were tried, the more were low by luck. Pure."""
    return min(trials, count + trials // 2) if count else 0


def finalists(state: StudyState, config: FinalsConfig) -> list[Finalist]:
    """All that could win, the best evidence first; of equal ones the better one of the search."""
    return _last_round(state, config)[0]


def missing(state: StudyState, config: FinalsConfig) -> list[Training]:
    """What to train next; none when the lead holds or no more trials may enter."""
    return _last_round(state, config)[1]


def _last_round(state: StudyState, config: FinalsConfig) -> tuple[list[Finalist], list[Training]]:
    """The last round from its beginning as far as its trainings have ended, and the trainings that it waits for.

    It is played with what is known, so what a kill left half done, or the last round of a shorter search left over,
    changes nothing.
    """
    field = [_finalist(trial, config) for trial in state.ranked]
    rounds = field[: most(config.count, len(field))]
    while step := _next(rounds, config.count):
        if lacking := [training for training in step if training.name not in state.finals]:
            return rounds, lacking
        known = {training.name: state.finals[training.name] for training in step}
        rounds = sorted((finalist.with_results(known) for finalist in rounds), key=lambda finalist: finalist.standing)
    return rounds, []


def _next(rounds: list[Finalist], count: int) -> list[Training]:
    """First whoever leads is trained, until the leader and `count` finalists in all have all their trainings."""
    waiting = [finalist for finalist in rounds if finalist.missing]
    lacking = count - (len(rounds) - len(waiting))
    if not waiting or (rounds[0] is not waiting[0] and lacking <= 0):
        return []
    return [training for finalist in waiting[: max(1, lacking)] for training in finalist.missing]


def _finalist(trial: TrialState, config: FinalsConfig) -> Finalist:
    params: Params = {**trial.proposal.params, "training.train_fraction": config.train_fraction}
    if config.epochs is not None:
        params = {**params, "training.epochs": config.epochs}
    trainings = tuple(Training(f"{trial.id}-f{number}", _FIRST_TURN + number, params) for number in range(config.seeds))
    return Finalist(trial, trainings, {})


def as_it_stands(state: StudyState) -> Finalist | None:
    """The accepted trial by its training in the search: the winner where there is no last round, or nothing of it."""
    best = state.best
    if best is None or best.result is None:
        return None
    return Finalist(best, (Training(best.id, 0, best.proposal.params),), {best.id: best.result})


def winner(state: StudyState, config: FinalsConfig) -> Finalist | None:
    """The best evidence of the last round.

    If all of it failed, or there is no last round, it is the accepted trial as it stands; None if no trial finished.
    """
    finished = [finalist for finalist in finalists(state, config) if finalist.values]
    return finished[0] if finished else as_it_stands(state)


def exported(finalist: Finalist) -> Training:
    """The one training of a finalist whose weights are handed out: that with the lowest validation error."""
    values = finalist.values
    return min((t for t in finalist.trainings if t.name in values), key=lambda t: values[t.name])
