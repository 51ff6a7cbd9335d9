"""What a proposer reads out of a history: the best trial, the points already tried, the values to learn from."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Protocol, TypeVar

from agentlab.search.space import SearchSpace
from agentlab.search.types import Trial


class Member(Protocol):
    """Who knows whether the budget cut its batch short after it."""

    @property
    def closes(self) -> bool: ...


M = TypeVar("M", bound=Member)


def batches(trials: Sequence[M], size: int) -> list[list[M]]:
    """The trials by batch: `size` after each other, or fewer where one was cut short. The last may be incomplete."""
    batches: list[list[M]] = []
    for trial in trials:
        if not batches or len(batches[-1]) >= size or batches[-1][-1].closes:
            batches.append([])
        batches[-1].append(trial)
    return batches


def value_of(trial: Trial) -> float | None:
    """The measured value; None for a failed trial and for a value that is not finite."""
    value = trial.result.value
    ok = trial.result.status == "finished" and value is not None and math.isfinite(value)
    return value if ok else None


def ended_trials(history: Sequence[Trial]) -> list[Trial]:
    """The trials that are not under way."""
    return [trial for trial in history if trial.result.status != "running"]


def finished_trials(history: Sequence[Trial]) -> list[Trial]:
    """The trials that measured something."""
    return [trial for trial in history if value_of(trial) is not None]


def incumbent(history: Sequence[Trial]) -> Trial | None:
    """The best trial so far, the earliest of equals; None before the first success."""
    return min(finished_trials(history), key=lambda trial: (value_of(trial), trial.number), default=None)


def first_trial_by_key(history: Sequence[Trial], space: SearchSpace) -> dict[str, int]:
    """Canonical key -> number of the first trial at that point, failed ones included."""
    keys: dict[str, int] = {}
    for trial in history:
        keys.setdefault(space.key(trial.proposal.params), trial.number)
    return keys


def targets(history: Sequence[Trial]) -> list[tuple[float, ...]] | None:
    """Finite values per trial for a surrogate to learn from: the objectives, where there are several; else the value.

    None before the first success.
    """
    done = finished_trials(history)
    if not done:
        return None
    values_by_id = {id(trial): _measured_values(trial) for trial in done}
    gaps = (None,) * min(map(len, values_by_id.values()))
    rows = [values_by_id.get(id(trial), gaps) for trial in history]
    columns = zip(*rows, strict=False)  # as many as the shortest row has
    return list(zip(*map(_fill_and_bound, columns), strict=True))


def _measured_values(trial: Trial) -> tuple[float, ...]:
    several = trial.result.objectives
    return several if len(several) > 1 else (trial.result.value or 0.0,)


def _fill_and_bound(values: Sequence[float | None]) -> list[float]:
    """With every gap filled and no outlier.

    A diverged value is pulled in to three times the distance between best and median above the median, and a
    failed trial takes the worst value that is left: a huge constant would flatten the surrogate everywhere else.
    So does a trial under way, which keeps a parallel search from proposing its neighbour.
    """
    known_values = [value for value in values if value is not None]
    middle = median(known_values)
    roof = middle + 3 * (middle - min(known_values)) if middle > min(known_values) else max(known_values)
    worst = min(max(known_values), roof)
    return [worst if value is None else min(value, roof) for value in values]
