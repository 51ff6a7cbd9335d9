"""The one referee: two rivals on the same items or in the same pairs, by an exact test. Pure; generators are passed in.

The test flips the signs of the differences (Fisher 1935): without an effect both signs are equally likely. Of truth
values that is McNemar's exact test, with twice the smaller tail. An interval that excludes 0 and a test that rejects
are the same thing here, so whoever reads the one knows the other.
"""

import math
from collections.abc import Hashable, Mapping
from functools import cache, lru_cache
from statistics import NormalDist
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentlab.stats.control import LEVEL, Evidence
from agentlab.stats.proportions import paired_share_difference_interval

Floats = NDArray[np.float64]
K = TypeVar("K", bound=Hashable)

POWER = 0.8  # how often the smallest effect would have been shown
_EXACT = 14  # 2**14 flips are enumerated
_DRAWS = 9_999  # Monte Carlo flips beyond that
_MOST_STUDIES = 100_000
_FLIPPED, _BLOCKS = 1 << 26, 20  # means simulated to learn what pairs show, in so many steps
_ROUNDING = 1e-12  # of the largest difference: a mean below it is 0
_MANY = 60  # pairs, from which on their mean is as good as normal
_RARE = 1e-7  # counts of differing items that are as unlikely as this are passed over
_POWER_STREAM = 11


def compare(ours: ArrayLike, theirs: ArrayLike, rng: np.random.Generator, *, level: float = LEVEL) -> Evidence:
    """The comparison that was named before the run. The test rejects at what the interval's level leaves.

    `ours`, `theirs`: (n,) scores in the same order of items or pairs; more is better. `rng`: draws sign flips where
    there are more than 14 pairs that are not truth values.

    Raises:
        ValueError: no item, different lengths, or a score that is not finite.
    """
    return _Sample(ours, theirs, rng).evidence(level)


def compare_family(rivals: Mapping[K, tuple[ArrayLike, ArrayLike]], rng: np.random.Generator) -> dict[K, Evidence]:
    """All other comparisons of a report: at most in 5 % of reports does any of them err (Holm 1979).

    Each interval has the level of its step, so they do not hold all together. From the first that shows nothing on,
    none does, and its interval is widened to touch 0. What one of these would have shown is told at the step of that
    first one, which is where it would have been tested. `rivals`: by name, the scores of both sides; see `compare`.
    `rng`: see `compare`.
    """
    samples = {name: _Sample(*sides, rng) for name, sides in rivals.items()}
    family: dict[K, Evidence] = {}
    first: float | None = None  # level of the first step that shows nothing
    for index, name in enumerate(sorted(samples, key=lambda name: samples[name].p)):
        level = 1 - (1 - LEVEL) / (len(samples) - index)
        family[name] = samples[name].evidence(level, stopped_at=first)
        if first is None and family[name].low <= 0 <= family[name].high:
            first = level
    return {name: family[name] for name in rivals}


class _Sample:
    """Differences of items or pairs, with the test's distribution."""

    def __init__(self, ours: ArrayLike, theirs: ArrayLike, rng: np.random.Generator) -> None:
        self.ours, self.theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
        if self.ours.ndim != 1 or self.ours.shape != self.theirs.shape or not self.ours.size:
            raise ValueError("paired samples must have the same length and at least one pair")
        self.differences = self.ours - self.theirs
        if not np.isfinite(self.differences).all():
            raise ValueError("all scores must be finite")
        self.n = self.differences.size
        self.binary = bool(np.isin(np.concatenate((self.ours, self.theirs)), (0.0, 1.0)).all())
        if not self.binary:
            self._means = np.sort(_means(_flips(self.n, rng), self.differences))
        self.p = self._mcnemar() if self.binary else self._flip_p_value()

    def _mcnemar(self) -> float:
        differing = int(np.abs(self.differences).sum())
        fewer = (differing - abs(int(self.differences.sum()))) // 2
        return min(1.0, 2 * float(_tails(differing)[differing - fewer]))

    def _flip_p_value(self) -> float:
        """The observed signs count among the flips, so the test is valid with drawn ones, too."""
        below, above = np.searchsorted(self._means, 0.0, "right"), np.searchsorted(-self._means[::-1], 0.0, "right")
        return min(1.0, 2 * (1 + float(min(below, above))) / (self._means.size + 1))

    def evidence(self, level: float, *, stopped_at: float | None = None) -> Evidence:
        """At a level. `stopped_at`: that of an earlier comparison of the family which shows nothing; nor does this."""
        estimate, shows = float(self.differences.mean()), self.p <= 1 - level + 1e-12 and stopped_at is None
        if self.binary:
            shares = paired_share_difference_interval(self.theirs.tolist(), self.ours.tolist(), level=level)
            low, high, method = shares.low, shares.high, "exact McNemar test, Newcombe's interval"
        else:
            rank = _rank(self._means.size + 1, level)
            low, high = (float("-inf"), float("inf")) if rank is None else (self._means[rank], self._means[-1 - rank])
            method = f"sign flips ({'exact' if self.n <= _EXACT else f'{_DRAWS:,} draws'})"
        if not shows:
            low, high = min(low, 0.0), max(high, 0.0)
        smallest, supposing = self._smallest(stopped_at or level)
        return Evidence(estimate, float(low), float(high), level, method, self.n, self.p, smallest, supposing)

    def _smallest(self, level: float) -> tuple[float | None, str]:
        if self.binary:
            # one more that differs and one that does not: that none of a few differs does not mean that none do
            discordance = (np.abs(self.differences).sum() + 1) / (self.n + 2)
            smallest = smallest_share_difference(self.n, float(discordance), level)
            return smallest, f"{100 * discordance:.2g} % of items differ"
        deviation = float(self.differences.std(ddof=1)) if self.n > 1 else 0.0
        if deviation <= _ROUNDING * np.abs(self.differences).max():
            return None, "all differences are equal"
        low, high = deviation_range(deviation, self.n)
        shift = smallest_shift(self.n, level)
        supposing = f"standard deviation of the differences {deviation:.2g}, 80 % interval {low:.2g} to {high:.2g}"
        return None if shift is None else shift * deviation, supposing


@lru_cache(1024)
def smallest_share_difference(n: int, discordance: float, level: float = LEVEL) -> float | None:
    """The least difference of shares that McNemar's exact test shows with power 0.8; None where `n` items show none.

    `discordance`: share of items on which exactly one side is right; at least the difference itself.
    """
    if mcnemar_power(n, 1.0, 1.0, level) < POWER:
        return None
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        enough = mcnemar_power(n, max(discordance, middle), middle, level) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def mcnemar_power(n: int, discordance: float, difference: float, level: float = LEVEL) -> float:
    """How often McNemar's exact test shows a positive difference of shares; exact.

    `discordance`: probability that exactly one side is right, at least `difference`; `difference`: of the probabilities
    that either side is right.
    """
    share = min(1.0, (1 + difference / discordance) / 2)
    counts = np.exp(_log_binomial(n, discordance))
    return sum(
        float(counts[differing] * np.exp(_log_binomial(differing, share)[_least_wins(differing, level) :]).sum())
        for differing in np.flatnonzero(counts > _RARE).tolist()
    )


@cache
def smallest_shift(n: int, level: float = LEVEL) -> float | None:
    """The least mean of normal differences, in their standard deviations, that sign flips show with power 0.8.

    A shift moves the interval by itself, so the test shows it as often as the lower end of a sample without an effect
    lies above its negative: one quantile of simulated ends tells it. None where `n` pairs show nothing.
    """
    if n >= _MANY:
        return (NormalDist().inv_cdf((1 + level) / 2) + NormalDist().inv_cdf(POWER)) / math.sqrt(n)
    rng = np.random.default_rng([_POWER_STREAM, n])
    flips = _flips(n, rng)
    rank = _rank(len(flips) + 1, level)
    if rank is None:
        return None
    ends, studies = [], min(_FLIPPED // len(flips), _MOST_STUDIES)
    for _ in range(_BLOCKS):
        means = _means(flips, rng.standard_normal((n, studies // _BLOCKS)))
        ends.append(np.partition(means, rank, axis=0)[rank])
    return float(np.quantile(-np.concatenate(ends), POWER))


def deviation_range(deviation: float, n: int) -> tuple[float, float]:
    """80 % interval of a normal standard deviation from `n` values; chi-squared after Wilson and Hilferty (1931)."""
    freedom = n - 1
    ends = []
    for tail in (0.9, 0.1):
        root = 1 - 2 / (9 * freedom) + NormalDist().inv_cdf(tail) * math.sqrt(2 / (9 * freedom))
        ends.append(deviation / max(root, 1e-3) ** 1.5)
    return ends[0], ends[1]


def _means(flips: Floats, differences: Floats) -> Floats:
    """(m, ...) the mean of the flipped ones among (n, ...) differences, for each of (m, n) flips.

    At this effect the flip is as extreme as the observed signs (Hartigan's typical values, 1969).
    """
    sizes = np.maximum(flips.sum(axis=1), 1)
    means = (flips @ differences) / sizes.reshape(-1, *(1,) * (differences.ndim - 1))
    return np.asarray(np.where(np.abs(means) > _ROUNDING * np.abs(differences).max(axis=0), means, 0.0))


def _flips(n: int, rng: np.random.Generator) -> Floats:
    """(m, n) truth values: all flips of n signs but the observed one, or some that are drawn."""
    if n > _EXACT:
        return (rng.random((_DRAWS, n)) < 0.5).astype(np.float64)
    return ((np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)


def _rank(flips: int, level: float) -> int | None:
    """Which of the sorted effects ends the interval; None where not even the most extreme flip is rare enough."""
    rank = math.floor(flips * (1 - level) / 2 + 1e-9) - 1
    return rank if rank >= 0 else None


def _log_binomial(n: int, share: float) -> Floats:
    """(n + 1,) logarithms of the probabilities of 0 to n successes."""
    counts = np.arange(n + 1)
    factorials = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1)))))
    with np.errstate(divide="ignore", invalid="ignore"):
        win_terms = np.where(counts > 0, counts * np.log(share), 0.0)
        loss_terms = np.where(counts < n, (n - counts) * np.log1p(-share), 0.0)
    return np.asarray(factorials[n] - factorials - factorials[::-1] + win_terms + loss_terms)


def _tails(n: int) -> Floats:
    """(n + 2,) how probably a fair coin falls on one side at least 0 to n + 1 times."""
    return np.append(np.cumsum(np.exp(_log_binomial(n, 0.5))[::-1])[::-1], 0.0)


@lru_cache(65536)
def _least_wins(differing: int, level: float) -> int:
    """Of so many items that differ, how many have to be won for the test to reject; one more than there are if none."""
    return int(np.argmax(2 * _tails(differing) <= 1 - level + 1e-12))
