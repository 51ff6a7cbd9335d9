"""The last round of a study: the best few trials once more, at full budget and with several seeds.

The search compares trials by one rough training each, and the lowest of many is low by luck, too. Training the best
few again takes the luck out; the winner is the lowest mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from agentlab.nas.config import FinalsConfig, NasConfig, TrialConfig, with_params
from agentlab.nas.state import StudyState, Training, TrialState
from agentlab.search.types import TrialResult


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
    def mean(self) -> float | None:
        """Mean validation MSE; None if all trainings failed."""
        return fmean(self.values.values()) if self.values else None


def finalists(state: StudyState, config: NasConfig) -> list[Finalist]:
    """The trials of the last round, best of the search first. With `count` 0 it is the accepted one as it stands."""
    finals, base = config.finals, config.trial()
    if finals.count == 0:
        best = state.best
        if best is None or best.result is None:
            return []
        return [Finalist(best, (Training(best.id, 0, best.proposal.params),), {best.id: best.result})]
    return [_finalist(trial, state, finals, base) for trial in state.ranked[: finals.count]]


def _finalist(trial: TrialState, state: StudyState, finals: FinalsConfig, base: TrialConfig) -> Finalist:
    """A trial whose budget was full already brings along the trainings that it has."""
    params = {**trial.proposal.params, "training.train_fraction": finals.train_fraction}
    if finals.epochs is not None:
        params["training.epochs"] = finals.epochs
    known = dict(state.finals)
    if with_params(base, params) == with_params(base, trial.proposal.params):
        known |= {trial.id: trial.result, **trial.repeats} if trial.result else {}
    names = {turn: f"{trial.id}-r{turn}" if turn else trial.id for turn in range(finals.seeds)}
    trainings = tuple(
        Training(name if name in known else f"{trial.id}-f{turn}", turn, params) for turn, name in names.items()
    )
    return Finalist(trial, trainings, {t.name: known[t.name] for t in trainings if t.name in known})


def missing(rounds: list[Finalist]) -> list[Training]:
    """Trainings of the last round that have not ended."""
    return [t for finalist in rounds for t in finalist.trainings if t.name not in finalist.results]


def winner(rounds: list[Finalist]) -> Finalist | None:
    """The lowest mean validation error, the better one of the search among equals; None if everything failed."""
    finished = [finalist for finalist in rounds if finalist.values]
    return min(finished, key=lambda finalist: finalist.mean or 0.0, default=None)


def exported(finalist: Finalist) -> Training:
    """The one training of a finalist whose weights are handed out: that with the lowest validation error."""
    values = finalist.values
    return min((t for t in finalist.trainings if t.name in values), key=lambda t: values[t.name])
