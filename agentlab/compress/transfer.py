"""What experiments on other bases say of recipes here: forecasts, held against what is measured, and a search arm.

A Gaussian process over recipes and bases, on logarithms. Two recipes are as alike as the settings, and pairs of
settings, that they share; what a setting does is in part common to all bases (the intrinsic model of coregionalisation,
Bonilla, Chai and Williams, NeurIPS 2007, section 2), and each base has a level of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from agentlab.compress.objective import REFERENCE, alone
from agentlab.search.history import finished_trials
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposal, Proposer, Trial
from agentlab.stats.fronts import front, hypervolume

_COMMON, _OWN, _LEVEL, _NOISE = 1.0, 0.3, 10.0, 0.02  # variances, in those of the logarithms
_LEAST = 1e-6  # of what a logarithm is taken
_ENOUGH = 3  # trials here that a forecast is held against before it is believed
_BELIEVED = 0.5  # of the squared error of their mean: a forecast has to be better than that
_DRAWN = 500  # points of a space that is not finite
_ALL = 4096  # points of one that is
_MOST = 500  # measurements elsewhere that are used: a forecast costs the cube of them
_KL = 1  # the column
HERE = ""  # the base that is compressed


@dataclass(frozen=True, slots=True)
class MeasuredRecipe:
    """A recipe on a base: bytes as a share of the bfloat16 base, KL, and the joules that it took."""

    where: str
    params: Params
    size: float
    kl: float
    joules: float


@dataclass(frozen=True, slots=True)
class RecipeEstimate:
    """What is forecast of a recipe; never a measurement."""

    size: float
    kl: float
    joules: float

    @property
    def objectives(self) -> tuple[float, float]:
        return self.size, self.kl


@dataclass(frozen=True)
class RecipeForecast:
    """Of recipes here, from what was measured here and elsewhere. Pure: the same measurements, the same forecast."""

    space: SearchSpace
    known: Sequence[MeasuredRecipe]

    def of(self, points: Sequence[Params]) -> list[RecipeEstimate]:
        """One for each point.

        Raises:
            ValueError: nothing is known.
        """
        across = self._alike(points, np.zeros(len(points), dtype=np.int64))
        logs = self._logs.mean(axis=0) + across @ self._weights
        return [RecipeEstimate(*row) for row in np.exp(logs).tolist()]

    def holds(self) -> bool:
        """Whether each KL that was measured here would have been forecast from all the others.

        Left out one by one, its squared error is less than half of that of the mean of the others here.
        """
        local_indices = np.flatnonzero(self._base == 0)
        if len(local_indices) < _ENOUGH or len(local_indices) == len(self._base):
            return False
        left_out = self._weights[local_indices, _KL] / self._inverse.diagonal()[local_indices]
        logs = self._logs[local_indices, _KL]
        plain = (logs - logs.mean()) * len(local_indices) / (len(local_indices) - 1)
        return bool(left_out @ left_out < _BELIEVED * plain @ plain)

    @cached_property
    def _base(self) -> np.ndarray:
        base_indices = {HERE: 0}
        return np.array([base_indices.setdefault(measurement.where, len(base_indices)) for measurement in self.known])

    @cached_property
    def _logs(self) -> np.ndarray:
        rows = [(measurement.size, measurement.kl, measurement.joules) for measurement in self.known]
        return np.log(np.maximum(np.array(rows, dtype=np.float64), _LEAST))

    @cached_property
    def _inverse(self) -> np.ndarray:
        within = self._alike([measurement.params for measurement in self.known], self._base)
        return np.linalg.inv(within + _NOISE * np.eye(len(within)))

    @cached_property
    def _weights(self) -> np.ndarray:
        return np.asarray(self._inverse @ (self._logs - self._logs.mean(axis=0)))

    def _alike(self, points: Sequence[Params], base: np.ndarray) -> np.ndarray:
        """Covariance of points on bases with all that is known, float64 (points, known)."""
        same = base[:, None] == self._base[None]
        known_points = [measurement.params for measurement in self.known]
        shared = 1 - distances(self.space, points, known_points) / len(self.space.parameters)
        return np.asarray((shared + shared**2) / 2 * (_COMMON + _OWN * same) + _LEVEL * same)


def distances(space: SearchSpace, left_points: Sequence[Params], right_points: Sequence[Params]) -> np.ndarray:
    """`SearchSpace.distance` of each with each, float64 (some, others)."""
    ordered = np.array([spec.is_ordered for spec in space.parameters.values()])
    left, left_active = _encode_points(space, left_points)
    right, right_active = _encode_points(space, right_points)
    differences = np.abs(left[:, None] - right[None])
    differences = np.where(ordered, differences, differences > 0)
    return np.asarray(np.where(left_active[:, None] == right_active[None], differences, 1.0).sum(-1))


def _encode_points(space: SearchSpace, points: Sequence[Params]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (float64) and which parameters are active (bool), both (points, parameters)."""
    coordinates = np.array([space.encode(point) for point in points])
    active = np.array([[name in point for name in space.parameters] for point in points])
    return coordinates, active


@dataclass(frozen=True)
class Recalling:
    """A search arm that asks memory first: most hypervolume a joule, as forecast from other bases.

    What memory says has to hold of the trials so far; until it does, and where it promises nothing, `base` proposes.
    """

    base: Proposer
    space: SearchSpace
    elsewhere: Sequence[MeasuredRecipe]

    @property
    def name(self) -> str:
        return self.base.name

    def ask(self, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        measurements = list(filter(None, map(_measured_recipe, finished_trials(history))))
        forecast = RecipeForecast(self.space, [*measurements, *self.elsewhere[:_MOST]])
        if not forecast.holds():
            return self.base.ask(history, n, rng)
        tried = {self.space.key(trial.proposal.params) for trial in history}
        points = self.space.points(_ALL) or [self.space.sample(rng) for _ in range(_DRAWN)]
        free = [point for point in points if self.space.key(point) not in tried]
        chosen = best_first(free, forecast.of(free) if free else [], [(row.size, row.kl) for row in measurements], n)
        recalled = [Proposal(point, "memory") for point in chosen]
        return recalled + (self.base.ask(history, n - len(recalled), rng) if len(recalled) < n else [])


def best_first(
    points: Sequence[Params], estimates: Sequence[RecipeEstimate], objectives: Sequence[tuple[float, float]], n: int
) -> list[Params]:
    """Up to `n` points that would add to a front: each adds most hypervolume a joule to those before. Pure."""
    best = [objectives[index] for index in front(objectives)]
    remaining, chosen = list(range(len(points))), list[Params]()
    while remaining and len(chosen) < n:
        before, worth = hypervolume(best, REFERENCE), dict[int, float]()
        for index in remaining:
            volume = hypervolume([*best, estimates[index].objectives], REFERENCE)
            worth[index] = (volume - before) / _roughly(estimates[index].joules)
        remaining = [index for index in remaining if worth[index] > 0]  # what adds nothing now adds nothing later
        if remaining:
            first = max(remaining, key=lambda index: (worth[index], -index))
            best = [*best, estimates[first].objectives]
            chosen.append(points[first])
            remaining.remove(first)
    return chosen


def _roughly(joules: float) -> float:
    """To two digits: joules are never measured alike twice, and what is proposed should not hang on the last ones."""
    return float(f"{max(joules, _LEAST):.1e}")


def score_forecasts(
    space: SearchSpace, trials: Sequence[Trial], elsewhere: Sequence[MeasuredRecipe]
) -> dict[str, float]:
    """How far off a forecast of each trial would have been, made of all before it: median factors, 1 is exact.

    Returns:
        `size`, `kl`, `joules`, and how many trials: `count`. Empty where nothing could be forecast.
    """
    off: list[np.ndarray] = []
    measurements = [_measured_recipe(trial) for trial in trials]
    for index, (trial, actual) in enumerate(zip(trials, measurements, strict=True)):
        forecast = RecipeForecast(space, [*filter(None, measurements[:index]), *elsewhere[:_MOST]])
        if actual is not None and forecast.known and actual.joules > 0:
            prediction = forecast.of([trial.proposal.params])[0]
            pairs = ((prediction.size, actual.size), (prediction.kl, actual.kl), (prediction.joules, actual.joules))
            off.append(np.abs([np.log(max(a, _LEAST) / max(b, _LEAST)) for a, b in pairs]))
    if not off:
        return {}
    size, kl, joules = np.exp(np.median(off, axis=0)).tolist()
    return {"size": size, "kl": kl, "joules": joules, "count": len(off)}


def _measured_recipe(trial: Trial) -> MeasuredRecipe | None:
    """None if nothing was measured; what was remembered counts with what it cost then."""
    if len(trial.result.objectives) != len(REFERENCE):
        return None
    size, kl = trial.result.objectives
    return MeasuredRecipe(HERE, trial.proposal.params, size, kl, alone(trial.result.metrics)["joules"])
