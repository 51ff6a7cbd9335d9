"""Intervals: randomisation by test inversion, the bootstrap, Student's t. Pure; the generator is passed in."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentlab.stats.control import Interval

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]  # array (..., n) -> (...): a statistic over the last axis

_EXACT = 14  # 2**14 assignments are enumerated
_DRAWS = 9_999  # Monte Carlo assignments beyond that
_BLOCK = 1_000  # assignments or resamples held in memory at once


def randomisation_interval(
    outcomes: ArrayLike,
    treated: ArrayLike,
    rng: np.random.Generator,
    *,
    probability: ArrayLike = 0.5,
    level: float = 0.95,
) -> Interval:
    """Difference in means, treated less control, when each unit was treated by a coin of known probability.

    Coins may differ; then each unit counts by the inverse of the probability of its arm (Hájek 1971). Where a coin
    depends on earlier outcomes, the draws keep the probabilities that were: the terms of the sum are martingale
    differences whose variance these draws have, so the level holds with many units, not exactly with few.

    Inverts Fisher's randomisation test under a constant effect: an effect belongs to the interval if neither
    one-sided test rejects it at (1 - level) / 2. For an assignment z' the test statistic is linear in the effect,
    so each z' changes sides at one effect, and the ends of the interval are weighted quantiles of those effects.
    Assignments with an empty arm are conditioned away. Exact up to 14 units; beyond, 9,999 drawn assignments with
    the observed one counted among them keep the test valid (Phipson and Smyth 2010). `treated` are (n,) truth values;
    `probability` is that of treatment, of all units or of each.

    Raises:
        ValueError: an arm is empty, the shapes differ, or a probability is not in [0.01, 0.99].
    """
    y, z = np.asarray(outcomes, dtype=np.float64), np.asarray(treated, dtype=bool)
    if y.ndim != 1 or y.shape != z.shape or z.all() or not z.any():
        raise ValueError("each outcome needs an assignment, and both arms need at least one unit")
    p = np.broadcast_to(np.asarray(probability, dtype=np.float64), y.shape)
    if not ((p >= 0.01) & (p <= 0.99)).all():
        raise ValueError(f"assignment probabilities of {p.min():g} to {p.max():g} would leave an arm (almost) empty")
    y = y - y.mean()  # the difference does not change, its rounding error does
    observed = float(np.average(y[z], weights=1 / p[z]) - np.average(y[~z], weights=1 / (1 - p[~z])))
    if y.size <= _EXACT:
        effects, weights = _exact(y, z, observed, p)
        method = "randomisation (exact)"
    else:
        effects, weights = _draw_crossings(y, z, observed, p, rng)
        method = f"randomisation ({_DRAWS:,} draws)"
    tail = (1 - level) / 2
    low, high = _crossing(effects, weights, tail), -_crossing(-effects, weights, tail)
    return Interval(observed, low, high, level, method)


def bootstrap_interval(
    values: ArrayLike,
    rng: np.random.Generator,
    *,
    statistic: Statistic = lambda x: x.mean(axis=-1),
    level: float = 0.95,
    method: Literal["percentile", "bca"] = "bca",
    resamples: int = 9_999,
) -> Interval:
    """Bootstrap interval of a statistic of one sample; BCa after Efron (1987).

    `values`: (n,) sample, n >= 2; `statistic`: vectorised over leading axes. `method`: percentile, or bias-corrected
    and accelerated.

    Raises:
        ValueError: fewer than two values.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size < 2:
        raise ValueError("a bootstrap needs at least two values")
    estimate = float(statistic(x))
    blocks = [min(_BLOCK, resamples - start) for start in range(0, resamples, _BLOCK)]
    replicates = np.concatenate([statistic(x[rng.integers(x.size, size=(rows, x.size))]) for rows in blocks])
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        tails = _bca_tails(x, statistic, estimate, replicates, tails)
    low, high = np.quantile(replicates, tails).tolist()
    return Interval(estimate, low, high, level, f"bootstrap ({method}, {resamples:,} resamples)")


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student's interval of the mean of (n,) independent values, about normal; nothing bounds the mean of one."""
    from scipy.special import stdtrit

    x, half = np.asarray(values, dtype=np.float64), math.inf
    if x.size > 1:
        half = float(stdtrit(x.size - 1, (1 + level) / 2)) * float(x.std(ddof=1)) / math.sqrt(x.size)
    mean = float(x.mean())
    return Interval(mean, mean - half, mean + half, level, "Student's t")


def paired_interval(
    treated: ArrayLike, control: ArrayLike, rng: np.random.Generator, *, level: float = 0.95, resamples: int = 9_999
) -> Interval:
    """BCa bootstrap interval of the mean difference of pairs, treated less control.

    Raises:
        ValueError: the arms differ in length or hold fewer than two pairs.
    """
    a, b = np.asarray(treated, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError("paired samples must have the same length")
    interval = bootstrap_interval(a - b, rng, level=level, resamples=resamples)
    return Interval(interval.estimate, interval.low, interval.high, level, f"paired {interval.method}")


def _exact(y: Floats, z: NDArray[np.bool_], observed: float, p: Floats) -> tuple[Floats, Floats]:
    """Crossing effects and weights of all assignments with two non-empty arms."""
    assignments = (np.arange(1, 2**y.size - 1)[:, None] >> np.arange(y.size)) & 1
    weights = np.where(assignments, p, 1 - p).prod(axis=1)
    return _crossings(assignments.astype(np.float64), y, z, observed, p), weights / weights.sum()


def _draw_crossings(
    y: Floats, z: NDArray[np.bool_], observed: float, p: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Crossing effects of drawn assignments and of the observed one, equally weighted."""
    effects: list[Floats] = [np.full(1, np.nan)]
    missing = _DRAWS
    while missing:
        rows = rng.random((min(missing, _BLOCK), y.size)) < p
        rows = rows[rows.any(axis=1) & ~rows.all(axis=1)]
        effects.append(_crossings(rows.astype(np.float64), y, z, observed, p))
        missing -= len(rows)
    return np.concatenate(effects), np.full(_DRAWS + 1, 1 / (_DRAWS + 1))


def _crossings(assignments: Floats, y: Floats, z: NDArray[np.bool_], observed: float, p: Floats) -> Floats:
    """(m,) effect at which each assignment becomes as extreme as the observed one; NaN where it is the observed one.

    With untreated outcomes y - effect * z, an assignment's difference is a - effect * b, the observed one is
    observed - effect, and b <= 1 with equality for the observed assignment alone.
    """
    treated, control, zf = assignments / p, (1 - assignments) / (1 - p), z.astype(np.float64)
    ones, zeros = treated.sum(axis=1), control.sum(axis=1)
    a = treated @ y / ones - control @ y / zeros
    b = treated @ zf / ones - control @ zf / zeros
    gap = 1 - b
    is_observed = gap < 1e-12
    return np.where(is_observed, np.nan, (observed - a) / np.where(is_observed, 1.0, gap))


def _crossing(effects: Floats, weights: Floats, tail: float) -> float:
    """Smallest effect at which the weight of assignments at least as extreme exceeds `tail`.

    The observed assignment (NaN) always counts; if it alone exceeds the tail, no effect can be ruled out.
    """
    is_observed = np.isnan(effects)
    order = np.argsort(effects[~is_observed], kind="stable")
    reached = weights[is_observed].sum() + np.cumsum(weights[~is_observed][order])
    if weights[is_observed].sum() > tail:
        return float("-inf")
    first = int(np.searchsorted(reached, tail, side="right"))
    return float(effects[~is_observed][order][min(first, order.size - 1)])


def _bca_tails(x: Floats, statistic: Statistic, estimate: float, replicates: Floats, tails: Floats) -> Floats:
    """Tail probabilities corrected for bias and acceleration (jackknife); unchanged for a constant sample."""
    normal = NormalDist()
    below = float((replicates < estimate).mean() + (replicates == estimate).mean() / 2)
    if not 0 < below < 1 or np.ptp(replicates) == 0:
        return tails
    bias = normal.inv_cdf(below)
    left_out = np.stack([np.delete(x, i) for i in range(x.size)])
    pulls = statistic(left_out).mean() - statistic(left_out)
    spread = float((pulls**2).sum() ** 1.5)
    acceleration = float((pulls**3).sum()) / (6 * spread) if spread > 0 else 0.0
    shifted = [bias + normal.inv_cdf(tail) for tail in tails.tolist()]
    return np.array([normal.cdf(bias + s / (1 - acceleration * s)) for s in shifted])
