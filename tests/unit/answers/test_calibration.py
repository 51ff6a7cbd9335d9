"""Calibration: figures against their definitions, and what a fit on fifty answers may promise."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.answers.calibration import auroc, bins, brier, ece, fit

PAIRS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


def split(pairs):
    return [confidence for confidence, _ in pairs], [right for _, right in pairs]


@pytest.mark.parametrize("number", [1, 2, 5, 10])
def test_a_calibrated_set_has_no_error(number):
    pairs = [(k / 10, index < k) for k in range(11) for index in range(10)]  # of ten at k/10, k are right
    assert ece(bins(*split(pairs), number)) == pytest.approx(0, abs=1e-12)


def test_bins_are_the_points_of_a_reliability_plot():
    low, high = bins([0.0, 0.1, 0.95, 1.0], [False, True, True, True])
    assert (low.low, low.high, low.count, low.confidence, low.accuracy) == (0.0, 0.1, 2, 0.05, 0.5)
    assert (high.low, high.high, high.count, high.confidence, high.accuracy) == (0.9, 1.0, 2, 0.975, 1.0)
    assert ece([low, high]) == pytest.approx((2 * 0.45 + 2 * 0.025) / 4)


@pytest.mark.parametrize("number", [10, 15, 25, 50])
def test_a_confidence_on_an_edge_belongs_to_the_bin_below(number):
    for index in range(1, number + 1):
        (bucket,) = bins([index / number], [True], number)
        assert (bucket.low, bucket.high) == ((index - 1) / number, index / number)


@given(PAIRS, st.integers(1, 20), st.randoms())
def test_error_and_score_are_bounded_and_know_no_order(pairs, number, rng):
    ordered, shuffled = split(pairs), split(rng.sample(pairs, len(pairs)))
    assert sum(bucket.count for bucket in bins(*ordered, number)) == len(pairs)
    assert 0 <= ece(bins(*ordered, number)) <= 1
    assert 0 <= brier(*ordered) <= 1
    assert ece(bins(*ordered, number)) == ece(bins(*shuffled, number))
    assert brier(*ordered) == brier(*shuffled)
    assert auroc(*ordered) == auroc(*shuffled)


def test_brier_is_the_squared_distance():
    assert brier([1.0, 0.0, 0.5], [True, False, True]) == pytest.approx(0.25 / 3)


@given(PAIRS)
def test_auroc_counts_pairs(pairs):
    good = [confidence for confidence, right in pairs if right]
    wrong = [confidence for confidence, right in pairs if not right]
    won = [1.0 if g > w else 0.5 if g == w else 0.0 for g in good for w in wrong]
    assert auroc(*split(pairs)) == (pytest.approx(sum(won) / len(won)) if won else None)


@pytest.mark.parametrize("confidences", [[1.1], [-0.1], [math.nan]])
def test_a_confidence_is_a_probability(confidences):
    for figure in (bins, brier, auroc, fit):
        with pytest.raises(ValueError, match="from 0 to 1"):
            figure(confidences, [True])
        with pytest.raises(ValueError, match=r"zip\(\)"):
            figure([0.5, 0.5], [True])
    for figure in (brier, fit, lambda probabilities, was: ece(bins(probabilities, was))):
        with pytest.raises(ValueError, match="no answer"):
            figure([], [])


@given(PAIRS)
def test_a_fit_keeps_the_order_and_never_says_never(pairs):
    platt = fit(*split(pairs))
    probabilities = [platt(confidence) for confidence, _ in sorted(pairs)]
    assert all(0 < probability < 1 for probability in probabilities)
    assert probabilities == sorted(probabilities)
    assert platt.slope >= 0


def drawn(count, seed, truth):
    """Answers whose confidence c is right with the probability truth(c)."""
    rng = random.Random(seed)
    confidences = [rng.uniform(0.05, 0.95) for _ in range(count)]
    return confidences, [rng.random() < truth(confidence) for confidence in confidences]


@pytest.mark.parametrize("truth", [lambda c: c / 2, lambda c: 0.2 + 0.6 * c, lambda c: c**3, lambda _: 0.3])
def test_fifty_answers_lower_the_error_on_others(truth):
    before, after = 0.0, 0.0
    for seed in range(20):
        platt = fit(*drawn(50, seed, truth))
        confidences, right = drawn(2_000, 1_000 + seed, truth)
        before += ece(bins(confidences, right)) / 20
        after += ece(bins([platt(confidence) for confidence in confidences], right)) / 20
    assert after < before


def test_a_fit_leaves_what_is_calibrated_about_as_it_is():
    platt = fit(*drawn(5_000, 0, lambda c: c))
    assert (platt.slope, platt.offset) == (pytest.approx(1, abs=0.1), pytest.approx(0, abs=0.1))


def test_a_confidence_that_runs_the_wrong_way_says_nothing():
    platt = fit([0.9] * 20 + [0.1] * 20, [False] * 20 + [True] * 20)
    assert platt.slope == 0
    assert platt(0.9) == platt(0.1) == pytest.approx(0.5)


def test_a_hair_between_right_and_wrong_is_a_steep_line_and_no_overflow():
    platt = fit([0.5, 0.5001] * 25, [False, True] * 25)
    assert platt.slope > 100
    assert (platt(1.0), platt(0.0)) == (0.9999, 0.0001)


def test_all_right_is_likely_and_not_certain():
    platt = fit([0.9] * 50, [True] * 50)
    assert platt(0.9) == pytest.approx(51 / 52, abs=1e-3)
