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
from agentlab.search.history import finished
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
class Measured:
    """A recipe on a base: bytes as a share of the bfloat16 base, KL, and the joules that it took."""

    where: str
    params: Params
    size: float
    kl: float
    joules: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is forecast of a recipe; never a measurement."""

    size: float
    kl: float
    joules: float

    @property
    def objectives(self) -> tuple[float, float]:
        return self.size, self.kl


@dataclass(frozen=True)
class Forecast:
    """Of recipes here, from what was measured here and elsewhere. Pure: the same measurements, the same forecast."""

    space: SearchSpace
    known: Sequence[Measured]

    def of(self, points: Sequence[Params]) -> list[Estimate]:
        """One for each point.

        Raises:
            ValueError: nothing is known.
        """
        across = self._alike(points, np.zeros(len(points), dtype=np.int64))
        logs = self._logs.mean(axis=0) + across @ self._weights
        return [Estimate(*row) for row in np.exp(logs).tolist()]

    def holds(self) -> bool:
        """Whether each KL that was measured here would have been forecast from all the others.

        Left out one by one, its squared error is less than half of that of the mean of the others here.
        """
        here = np.flatnonzero(self._base == 0)
        if len(here) < _ENOUGH or len(here) == len(self._base):
            return False
        left_out = self._weights[here, _KL] / self._inverse.diagonal()[here]
        logs = self._logs[here, _KL]
        plain = (logs - logs.mean()) * len(here) / (len(here) - 1)
        return bool(left_out @ left_out < _BELIEVED * plain @ plain)

    @cached_property
    def _base(self) -> np.ndarray:
        places = {HERE: 0}
        return np.array([places.setdefault(each.where, len(places)) for each in self.known])

    @cached_property
    def _logs(self) -> np.ndarray:
        rows = [(each.size, each.kl, each.joules) for each in self.known]
        return np.log(np.maximum(np.array(rows, dtype=np.float64), _LEAST))

    @cached_property
    def _inverse(self) -> np.ndarray:
        within = self._alike([each.params for each in self.known], self._base)
        return np.linalg.inv(within + _NOISE * np.eye(len(within)))

    @cached_property
    def _weights(self) -> np.ndarray:
        return np.asarray(self._inverse @ (self._logs - self._logs.mean(axis=0)))

    def _alike(self, points: Sequence[Params], base: np.ndarray) -> np.ndarray:
        """Covariance of points on bases with all that is known, float64 (points, known)."""
        same = base[:, None] == self._base[None]
        shared = 1 - distances(self.space, points, [each.params for each in self.known]) / len(self.space.parameters)
        return np.asarray((shared + shared**2) / 2 * (_COMMON + _OWN * same) + _LEVEL * same)


def distances(space: SearchSpace, some: Sequence[Params], others: Sequence[Params]) -> np.ndarray:
    """`SearchSpace.distance` of each with each, float64 (some, others)."""
    ordered = np.array([spec.ordered for spec in space.parameters.values()])
    places = [np.array([space.encode(point) for point in points]) for points in (some, others)]
    active = [np.array([[name in point for name in space.parameters] for point in points]) for points in (some, others)]
    apart = np.abs(places[0][:, None] - places[1][None])
    apart = np.where(ordered, apart, apart > 0)
    return np.asarray(np.where(active[0][:, None] == active[1][None], apart, 1.0).sum(-1))


@dataclass(frozen=True)
class Recalling:
    """A search arm that asks memory first: most hypervolume a joule, as forecast from other bases.

    What memory says has to hold of the trials so far; until it does, and where it promises nothing, `base` proposes.
    """

    base: Proposer
    space: SearchSpace
    elsewhere: Sequence[Measured]

    @property
    def name(self) -> str:
        """That of the arm behind it."""
        return self.base.name

    def ask(self, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        """Up to `n` points, those of memory first."""
        here = [each for trial in finished(history) if (each := measured(HERE, trial))]
        forecast = Forecast(self.space, [*here, *self.elsewhere[:_MOST]])
        if not forecast.holds():
            return self.base.ask(history, n, rng)
        tried = {self.space.key(trial.proposal.params) for trial in history}
        points = self.space.points(_ALL) or [self.space.sample(rng) for _ in range(_DRAWN)]
        free = [point for point in points if self.space.key(point) not in tried]
        found = best_first(free, forecast.of(free) if free else [], [(each.size, each.kl) for each in here], n)
        recalled = [Proposal(point, "memory") for point in found]
        return recalled + (self.base.ask(history, n - len(recalled), rng) if len(recalled) < n else [])


def best_first(
    points: Sequence[Params], estimates: Sequence[Estimate], there: Sequence[tuple[float, float]], n: int
) -> list[Params]:
    """Up to `n` points that would add to a front: each adds most hypervolume a joule to those before. Pure."""
    best, left, found = [there[place] for place in front(there)], list(range(len(points))), list[Params]()
    while left and len(found) < n:
        before = hypervolume(best, REFERENCE)
        worth = {
            place: (hypervolume([*best, estimates[place].objectives], REFERENCE) - before)
            / _roughly(estimates[place].joules)
            for place in left
        }
        left = [place for place in left if worth[place] > 0]  # what adds nothing now adds nothing later
        if left:
            first = max(left, key=lambda place: (worth[place], -place))
            best = [*best, estimates[first].objectives]
            found.append(points[first])
            left.remove(first)
    return found


def _roughly(joules: float) -> float:
    """To two digits: joules are never measured alike twice, and what is proposed should not hang on the last ones."""
    return float(f"{max(joules, _LEAST):.1e}")


def scored(space: SearchSpace, trials: Sequence[Trial], elsewhere: Sequence[Measured]) -> dict[str, float]:
    """How far off a forecast of each trial would have been, made of all before it: median factors, 1 is exact.

    Returns:
        `size`, `kl`, `joules`, and how many trials: `count`. Empty where nothing could be forecast.
    """
    off: list[np.ndarray] = []
    for place, trial in enumerate(trials):
        before = [each for other in trials[:place] if (each := measured(HERE, other))]
        forecast = Forecast(space, [*before, *elsewhere[:_MOST]])
        found = measured(HERE, trial)
        if found is not None and forecast.known and found.joules > 0:
            said = forecast.of([trial.proposal.params])[0]
            pairs = ((said.size, found.size), (said.kl, found.kl), (said.joules, found.joules))
            off.append(np.abs([np.log(max(a, _LEAST) / max(b, _LEAST)) for a, b in pairs]))
    if not off:
        return {}
    size, kl, joules = np.exp(np.median(off, axis=0)).tolist()
    return {"size": size, "kl": kl, "joules": joules, "count": len(off)}


def measured(where: str, trial: Trial) -> Measured | None:
    """What a trial measured, if it did; what was remembered counts with what it cost then."""
    if len(trial.result.objectives) != len(REFERENCE):
        return None
    size, kl = trial.result.objectives
    return Measured(where, trial.proposal.params, size, kl, alone(trial.result.metrics)["joules"])
