"""Ratios: what they are invariant to, that they keep their level, and that rounds go on until one is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.stats.ratios import is_narrow, measure_ratios, quantile_ratio_intervals, ratio_interval

times = st.lists(st.floats(0.01, 100).map(lambda x: round(x, 3)), min_size=2, max_size=30)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(max_examples=30)
@given(times, times, st.floats(0.1, 10))
def test_a_scale_of_one_side_scales_the_ratio(a, b, scale):
    base = quantile_ratio_intervals(a, b, [0.5, 0.9], rng(), resamples=50)
    scaled = quantile_ratio_intervals(a, np.array(b) * scale, [0.5, 0.9], rng(), resamples=50)
    for one, scaled_interval in zip(base, scaled, strict=True):
        assert (scaled_interval.estimate, scaled_interval.low, scaled_interval.high) == pytest.approx(
            (scale * one.estimate, scale * one.low, scale * one.high)
        )


@settings(max_examples=30)
@given(times, times)
def test_a_seed_repeats_it(a, b):
    assert quantile_ratio_intervals(a, b, [0.5], rng(7), resamples=50) == quantile_ratio_intervals(
        a, b, [0.5], rng(7), resamples=50
    )


def test_a_constant_series_has_no_width():
    intervals = quantile_ratio_intervals([2.0] * 20, [3.0] * 30, [0.5, 0.99], rng())
    assert [(interval.low, interval.estimate, interval.high) for interval in intervals] == [
        pytest.approx((1.5, 1.5, 1.5))
    ] * 2


def waiting(generator: np.random.Generator, n: int, carry: float) -> np.ndarray:
    """Log-normal times, each like the one before: an autoregression of the first order."""
    noise = generator.normal(size=n) * np.sqrt(1 - carry**2)
    level = np.empty(n)
    level[0] = generator.normal()
    for i in range(1, n):
        level[i] = carry * level[i - 1] + noise[i]
    return np.exp(0.4 * level)


@pytest.mark.parametrize(("carry", "min_coverage"), [(0.0, 0.91), (0.6, 0.87)])
def test_it_covers_the_truth_also_when_neighbours_are_alike(carry, min_coverage):
    """200 pairs of runs of the same system: the true ratio is 1. Single draws would cover 0.78 of the second kind."""
    generator, pairs, covered = rng(3), 200, 0
    for _ in range(pairs):
        a, b = waiting(generator, 200, carry), waiting(generator, 200, carry)
        (interval,) = quantile_ratio_intervals(a, b, [0.5], generator, resamples=400)
        covered += interval.low <= 1 <= interval.high
    assert covered / pairs >= min_coverage


@pytest.mark.parametrize("bad", [[], [1.0, 0.0], [1.0, float("inf")], [1.0, float("nan")], [-1.0]])
def test_what_is_no_time_is_refused(bad):
    with pytest.raises(ValueError, match="positive"):
        quantile_ratio_intervals([1.0], bad, [0.5], rng())


def test_rounds_end_when_the_interval_is_narrow_or_at_thirty():
    def rounds(spread: float) -> list[float]:
        ratios = iter(np.exp(rng().normal(np.log(2.0), spread, 40)).tolist())
        return measure_ratios(lambda: next(ratios))

    assert rounds(0.0) == [np.log(2.0)] * 5
    some = rounds(0.06)
    assert 5 < len(some) < 30
    interval = ratio_interval(some)
    assert is_narrow(interval.low, interval.high)
    assert interval.low < 2.0 < interval.high
    wild = rounds(0.5)
    assert len(wild) == 30
    interval = ratio_interval(wild)
    assert not is_narrow(interval.low, interval.high)


def test_a_ratio_of_rounds_is_as_far_from_one_as_its_inverse():
    logs = rng().normal(0.3, 0.1, 8)
    one, inverse = ratio_interval(logs), ratio_interval(-logs)
    assert (one.estimate, one.low, one.high) == pytest.approx((1 / inverse.estimate, 1 / inverse.high, 1 / inverse.low))
