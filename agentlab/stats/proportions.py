"""Intervals of shares and of their differences. Pure; they hold for few observations and for shares of 0 and 1."""

import math
from statistics import NormalDist, fmean

from agentlab.stats.control import Interval


def wilson_interval(successes: float, n: int, *, level: float = 0.95) -> Interval:
    """Interval of a share by inverting the score test (Wilson 1927).

    `successes`: in [0, n]; the sum of scores in [0, 1] will do, whose scatter is at most that of truth values, so that
    the interval is wide enough. `n`: observations, at least 1.

    Raises:
        ValueError: no observation, or more successes than observations.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes out of {n}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, room = successes / n, z * z / n
    middle = (share + room / 2) / (1 + room)
    half = z * math.sqrt(share * (1 - share) / n + room / (4 * n)) / (1 + room)
    # at the ends the exact bound is the share itself; rounding must not move it past
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return Interval(share, low, high, level, "Wilson")


def share_difference_interval(a: tuple[float, int], b: tuple[float, int], *, level: float = 0.95) -> Interval:
    """Share of b less share of a, of independent samples: Newcombe's hybrid score interval (1998a, method 10).

    `a`, `b`: successes and observations.

    Raises:
        ValueError: as of `wilson_interval`.
    """
    interval = _hybrid(wilson_interval(*b, level=level), wilson_interval(*a, level=level), 0.0)
    return Interval(interval.estimate, interval.low, interval.high, level, "Newcombe")


def paired_share_difference_interval(a: list[float], b: list[float], *, level: float = 0.95) -> Interval:
    """Mean of b less mean of a over the same items: Newcombe's interval for paired shares (1998b, method 10).

    It stays open where no pair differs, as a resampling interval does not. Scores between 0 and 1 are taken as they
    are, in the shares and in their correlation; for truth values it is the published interval. `a`, `b`: scores in [0,
    1], in the same order of items.

    Raises:
        ValueError: no pair, or different lengths.
    """
    if len(a) != len(b) or not a:
        raise ValueError("paired samples must have the same length and at least one pair")
    n = len(a)
    first, second = wilson_interval(sum(a), n, level=level), wilson_interval(sum(b), n, level=level)
    interval = _hybrid(second, first, _correlation(a, b))
    return Interval(interval.estimate, interval.low, interval.high, level, "Newcombe, paired")


def _hybrid(first: Interval, second: Interval, correlation: float) -> Interval:
    """The interval of one share less another from those of the shares."""
    difference = first.estimate - second.estimate
    below, above = first.estimate - first.low, first.high - first.estimate
    other_below, other_above = second.estimate - second.low, second.high - second.estimate
    down = below**2 - 2 * correlation * below * other_above + other_above**2
    up = above**2 - 2 * correlation * above * other_below + other_below**2
    low, high = difference - math.sqrt(max(0.0, down)), difference + math.sqrt(max(0.0, up))
    return Interval(difference, max(-1.0, low), min(1.0, high), first.level, "")


def _correlation(a: list[float], b: list[float]) -> float:
    """Correlation of the scores, a positive one corrected for continuity as published; 0 where one is constant."""
    n, mean_a, mean_b = len(a), fmean(a), fmean(b)
    covariance = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True)) / n
    spread = math.sqrt(mean_a * (1 - mean_a) * mean_b * (1 - mean_b))
    if spread == 0:
        return 0.0
    if covariance > 0:
        covariance = max(0.0, covariance - 1 / (2 * n))
    return covariance / spread
