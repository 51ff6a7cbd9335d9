"""Intervals: what they are invariant to, that they keep their level, and where too little data is admitted."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.stats.intervals import (
    bootstrap_interval,
    mean_interval,
    paired_interval,
    randomisation_interval,
)

values = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=7, max_size=10)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def half(n: int) -> np.ndarray:
    return np.arange(n) % 2 == 0


def test_by_hand_the_exact_interval_inverts_the_test():
    """Every effect inside is accepted by the randomisation test, every effect outside is rejected."""
    y, z = rng(3).normal(size=9), half(9)
    interval = randomisation_interval(y, z, rng(), level=0.9)

    def p_values(effect: float) -> tuple[float, float]:
        base = y - effect * z
        rows = [[(code >> i) & 1 == 1 for i in range(9)] for code in range(1, 2**9 - 1)]
        stats = np.array([base[r].mean() - base[~np.array(r)].mean() for r in map(np.array, rows)])
        seen = base[z].mean() - base[~z].mean()
        return float((stats >= seen - 1e-9).mean()), float((stats <= seen + 1e-9).mean())

    step = 1e-6
    assert min(p_values(interval.low + step)) > 0.05
    assert min(p_values(interval.high - step)) > 0.05
    assert min(p_values(interval.low - step)) <= 0.05
    assert min(p_values(interval.high + step)) <= 0.05


@settings(max_examples=25, deadline=None)
@given(values, st.floats(-50, 50), st.floats(0.1, 10))
def test_a_shift_changes_nothing_and_a_scale_scales(y, shift, scale):
    z = half(len(y))
    base = randomisation_interval(y, z, rng())
    moved = randomisation_interval(np.array(y) * scale + shift, z, rng())
    for name in ("estimate", "low", "high"):
        assert getattr(moved, name) == pytest.approx(scale * getattr(base, name), abs=1e-7)


@settings(max_examples=25, deadline=None)
@given(values, st.floats(0.2, 0.8))
def test_swapping_the_arms_mirrors_the_interval(y, probability):
    z = half(len(y))
    one = randomisation_interval(y, z, rng(), probability=probability)
    mirrored = randomisation_interval(y, ~z, rng(), probability=1 - probability)
    assert (mirrored.low, mirrored.high) == pytest.approx((-one.high, -one.low), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(values, st.floats(-5, 5))
def test_an_effect_added_to_the_treated_moves_the_interval_by_it(y, effect):
    z = half(len(y))
    base, moved = randomisation_interval(y, z, rng()), randomisation_interval(np.array(y) + effect * z, z, rng())
    assert (moved.low, moved.high) == pytest.approx((base.low + effect, base.high + effect), abs=1e-7)


def test_four_units_bound_nothing():
    interval = randomisation_interval([1.0, 2.0, 9.0, 8.0], [False, False, True, True], rng())
    assert (interval.low, interval.high) == (-math.inf, math.inf)
    assert interval.estimate == 7.0


@pytest.mark.parametrize("n", [10, 20])
def test_the_randomisation_interval_keeps_its_level(n):
    """Skewed outcomes, effect 0.5, 200 repetitions: 95 % nominal, at least 91 % (three standard errors) seen."""
    source, hits, total = rng(n), 0, 0
    while total < 200:
        z = source.random(n) < 0.5
        if z.all() or not z.any():
            continue
        y = source.exponential(size=n) + 0.5 * z
        interval = randomisation_interval(y, z, source)
        hits += interval.low <= 0.5 <= interval.high
        total += 1
    assert hits / total >= 0.91


def test_drawn_and_enumerated_assignments_agree(monkeypatch):
    y, z = rng(1).normal(size=14), half(14)
    exact = randomisation_interval(y, z, rng())
    monkeypatch.setattr("agentlab.stats.intervals._EXACT", 0)
    sampled = randomisation_interval(y, z, rng())
    assert "draws" in sampled.method
    assert (sampled.low, sampled.high) == pytest.approx((exact.low, exact.high), abs=0.15)
    assert sampled == randomisation_interval(y, z, rng())


@pytest.mark.parametrize(
    ("y", "z"), [([1.0, 2.0], [True, True]), ([1.0, 2.0], [False, False]), ([1.0], [True, False]), ([], [])]
)
def test_an_empty_arm_is_refused(y, z):
    with pytest.raises(ValueError, match="both arms"):
        randomisation_interval(y, z, rng())


def test_a_hopeless_probability_is_refused():
    with pytest.raises(ValueError, match="almost"):
        randomisation_interval([1.0, 2.0], [True, False], rng(), probability=1e-9)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_the_bootstrap_covers_a_mean(method):
    source, hits = rng(7), 0
    for _ in range(150):
        interval = bootstrap_interval(source.normal(2, 1, size=25), source, method=method, resamples=400)
        hits += interval.low <= 2 <= interval.high
    assert hits / 150 >= 0.87


def test_bca_follows_the_skew():
    """For a right-skewed sample BCa reaches further to the right than the percentile interval."""
    x = rng(0).exponential(size=30) ** 2
    plain, bca = bootstrap_interval(x, rng(), method="percentile"), bootstrap_interval(x, rng(), method="bca")
    assert bca.high > plain.high
    assert bca.low > plain.low


def test_the_bootstrap_takes_any_vectorised_statistic():
    interval = bootstrap_interval(np.arange(11.0), rng(), statistic=lambda x: np.median(x, axis=-1))
    assert interval.estimate == 5
    assert interval.low < 5 < interval.high


def test_a_constant_sample_has_a_point_interval():
    interval = bootstrap_interval([3.0, 3.0, 3.0], rng())
    assert (interval.low, interval.estimate, interval.high) == (3, 3, 3)


def test_pairs_cancel_what_they_share():
    source = rng(4)
    shared = source.normal(0, 10, size=20)
    interval = paired_interval(shared + 1 + 0.1 * source.normal(size=20), shared, rng())
    assert 0.8 < interval.low < interval.high < 1.2


def test_samples_too_small_for_a_bootstrap_are_refused():
    with pytest.raises(ValueError, match="two values"):
        bootstrap_interval([1.0], rng())
    with pytest.raises(ValueError, match="same length"):
        paired_interval([1.0, 2.0], [1.0], rng())


def test_the_interval_keeps_its_level_where_the_coin_follows_earlier_outcomes() -> None:
    """A rule that favours the better arm biases plain means; weights by the inverse of the odds do not."""
    source, missed, estimates = np.random.default_rng(5), 0, []
    for _ in range(200):
        y, z, p = np.zeros(24), np.zeros(24, dtype=bool), np.full(24, 0.5)
        for n in range(24):
            if n >= 4 and z[:n].any() and not z[:n].all():
                p[n] = 0.75 if y[:n][z[:n]].mean() > y[:n][~z[:n]].mean() else 0.25
            z[n] = source.random() < p[n]
            y[n] = source.normal() / (1 + n)  # gains grow smaller, as those of a search
        if z.any() and not z.all():
            interval = randomisation_interval(y, z, source, probability=p)
            missed += not interval.low <= 0 <= interval.high
            estimates.append(interval.estimate)
    assert missed / 200 <= 0.10
    assert abs(np.mean(estimates)) < 0.05


def test_students_interval_is_that_of_the_tables_and_keeps_its_level_with_few_values():
    interval = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0], 0.95)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx(
        (3.0, 3 - 2.776445 * math.sqrt(0.5), 4.963243)
    )
    draws = rng().normal(1.0, 2.0, (4_000, 8))
    inside = [
        sample_interval.low <= 1.0 <= sample_interval.high
        for sample_interval in (mean_interval(row, 0.9875) for row in draws)
    ]
    assert np.mean(inside) == pytest.approx(0.9875, abs=0.006)


def test_one_value_bounds_no_mean():
    interval = mean_interval([0.3])
    assert (interval.estimate, interval.low, interval.high) == (0.3, -math.inf, math.inf)
