"""The last round of a study: the best few trials once more, at full budget and with several seeds.

The search compares trials by one rough training each, and the lowest of many is low by luck, too. Training the best
few again, with seeds that the search has not used, takes the luck out; the winner is the lowest mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
    def mean(self) -> float | None:
        """Mean validation MSE; None if all trainings failed."""
        return fmean(self.values.values()) if self.values else None


def finalists(state: StudyState, config: FinalsConfig) -> list[Finalist]:
    """The trials of the last round, best of the search first; none with `count` 0."""
    return [_finalist(trial, state, config) for trial in state.ranked[: config.count]]


def _finalist(trial: TrialState, state: StudyState, config: FinalsConfig) -> Finalist:
    params: Params = {**trial.proposal.params, "training.train_fraction": config.train_fraction}
    if config.epochs is not None:
        params = {**params, "training.epochs": config.epochs}
    trainings = tuple(Training(f"{trial.id}-f{number}", _FIRST_TURN + number, params) for number in range(config.seeds))
    return Finalist(trial, trainings, {t.name: state.finals[t.name] for t in trainings if t.name in state.finals})


def as_it_stands(state: StudyState) -> Finalist | None:
    """The accepted trial by its training in the search: the winner where there is no last round, or nothing of it."""
    best = state.best
    if best is None or best.result is None:
        return None
    return Finalist(best, (Training(best.id, 0, best.proposal.params),), {best.id: best.result})


def missing(rounds: list[Finalist]) -> list[Training]:
    """Trainings of the last round that have not ended."""
    return [t for finalist in rounds for t in finalist.trainings if t.name not in finalist.results]


def winner(state: StudyState, config: FinalsConfig) -> Finalist | None:
    """The lowest mean validation error of the last round, the better one of the search among equals.

    A finalist that failed with fewer seeds comes before one that failed with more: a lucky seed is no evidence. If all
    of them failed, or there is no last round, it is the accepted trial as it stands; None if no trial finished.
    """
    finished = [finalist for finalist in finalists(state, config) if finalist.values]
    best = min(finished, key=lambda finalist: (finalist.failed, finalist.mean), default=None)
    return best or as_it_stands(state)


def exported(finalist: Finalist) -> Training:
    """The one training of a finalist whose weights are handed out: that with the lowest validation error."""
    values = finalist.values
    return min((t for t in finalist.trainings if t.name in values), key=lambda t: values[t.name])
