"""How many times as large is one series of measurements as another: its quantiles, or round by round? Pure."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentlab.stats.control import Interval
from agentlab.stats.intervals import mean_interval

_CELLS = 2_000_000  # resampled values held in memory at once
_FEWEST, _MOST, _NARROW = 5, 30, 0.05  # rounds; and an interval is narrow that is so small a share of its ratio


def ratio_interval(logs: ArrayLike, level: float = 0.95) -> Interval:
    """The geometric mean of ratios, of which the logarithms are given; see `mean_interval`."""
    interval = mean_interval(logs, level)
    estimate, low, high = np.exp([interval.estimate, interval.low, interval.high]).tolist()
    return Interval(estimate, low, high, level, interval.method)


def is_narrow(low: float, high: float) -> bool:
    """Whether an interval says how large a ratio is."""
    return high - low <= _NARROW * math.sqrt(low * high)


def measure_ratios(measure: Callable[[], float]) -> list[float]:
    """Logarithms of a ratio that is measured in rounds until its interval is narrow: at least 5 rounds, at most 30.

    That the rounds end when it is narrow makes it a little too narrow.
    """
    logs = [math.log(measure()) for _ in range(_FEWEST)]
    while len(logs) < _MOST:
        interval = ratio_interval(logs)
        if is_narrow(interval.low, interval.high):
            break
        logs.append(math.log(measure()))
    return logs


def quantile_ratio_intervals(
    a: ArrayLike,
    b: ArrayLike,
    quantiles: Sequence[float],
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    resamples: int = 2_000,
) -> list[Interval]:
    """Percentile intervals of quantile(b) / quantile(a), one per quantile, by the circular block bootstrap.

    Latencies that follow each other are alike (a queue, a slow minute), so blocks of sqrt(n) neighbours are drawn
    instead of single values (Politis and Romano 1992); both series are resampled independently. Where neighbours are
    almost equal, as in a queue that never empties, the intervals are still too narrow. Quantiles interpolate linearly
    between order statistics. `a`, `b`: positive measurements in the order in which they were taken; `rng`: draws the
    blocks.

    Raises:
        ValueError: a series is empty, or a value is not positive and finite.
    """
    first, second = _require_positive(a), _require_positive(b)
    logs = _resample_quantiles(second, quantiles, rng, resamples)
    logs -= _resample_quantiles(first, quantiles, rng, resamples)
    estimates = np.quantile(second, quantiles) / np.quantile(first, quantiles)
    lows, highs = np.exp(np.quantile(logs, [(1 - level) / 2, (1 + level) / 2], axis=0))
    method = f"block bootstrap ({resamples:,} resamples)"
    return [
        Interval(float(estimate), float(low), float(high), level, method)
        for estimate, low, high in zip(estimates, lows, highs, strict=True)
    ]


def _require_positive(values: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not x.size or not (np.isfinite(x) & (x > 0)).all():
        raise ValueError("a ratio of quantiles needs positive, finite measurements")
    return x


def _resample_quantiles(
    x: NDArray[np.float64], quantiles: Sequence[float], rng: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """(resamples, quantiles) logarithms of the quantiles of resampled series."""
    length = max(1, round(math.sqrt(x.size)))
    blocks = math.ceil(x.size / length)
    offsets = np.arange(length)
    log_quantiles: list[NDArray[np.float64]] = []
    rows = max(1, _CELLS // x.size)
    for start in range(0, resamples, rows):
        starts = rng.integers(x.size, size=(min(rows, resamples - start), blocks, 1))
        resampled = x[((starts + offsets) % x.size).reshape(len(starts), -1)[:, : x.size]]
        log_quantiles.append(np.log(np.quantile(resampled, quantiles, axis=1)).T)
    return np.concatenate(log_quantiles)
