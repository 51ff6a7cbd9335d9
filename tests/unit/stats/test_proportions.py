"""Intervals of shares: published values, what they are invariant to, and that they stay open where data is thin."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.stats.proportions import (
    paired_share_difference_interval,
    share_difference_interval,
    wilson_interval,
)

scores = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    """Newcombe 1998, Two-sided confidence intervals for the single proportion, table I, method 3."""
    interval = wilson_interval(successes, n)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [((48, 80), (56, 70), 0.0524, 0.3339), ((3, 10), (9, 10), 0.1705, 0.8090), ((0, 20), (10, 10), 0.6791, 1.0)],
)
def test_the_difference_of_independent_shares_is_the_published_one(first, second, low, high):
    """Newcombe 1998, Interval estimation for the difference between independent proportions, table II, method 10."""
    interval = share_difference_interval(first, second)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


def test_the_difference_of_paired_shares_by_hand():
    """32 and 22 of 50: Wilson [.5014, .7586] and [.3116, .5769], correlation (20 * 16 - 12 * 2 - 25) / 595.66."""
    pairs = [(1.0, 1.0)] * 20 + [(1.0, 0.0)] * 12 + [(0.0, 1.0)] * 2 + [(0.0, 0.0)] * 16
    interval = paired_share_difference_interval([b for _, b in pairs], [a for a, _ in pairs])
    assert interval.estimate == pytest.approx(0.2)
    assert (interval.low, interval.high) == (pytest.approx(0.0562, abs=6e-5), pytest.approx(0.3292, abs=6e-5))


@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_the_interval_holds_the_share_and_mirrors(n, share, level):
    successes = round(share * n)
    interval, mirrored = wilson_interval(successes, n, level=level), wilson_interval(n - successes, n, level=level)
    assert 0 <= interval.low <= successes / n <= interval.high <= 1
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((interval.low, interval.high), abs=1e-9)


@given(scores)
def test_equal_scores_differ_by_nothing_within_an_open_interval(a):
    interval = paired_share_difference_interval(a, a)
    assert interval.estimate == 0
    assert interval.low < 0 < interval.high


@given(st.data())
def test_swapping_the_sides_mirrors_the_difference(data):
    a = data.draw(scores)
    b = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=len(a), max_size=len(a)))
    one, mirrored = paired_share_difference_interval(a, b), paired_share_difference_interval(b, a)
    assert (one.low, one.high) == pytest.approx((-mirrored.high, -mirrored.low), abs=1e-9)
    assert -1 <= one.low <= one.estimate <= one.high <= 1


def test_pairs_that_go_together_tell_more_than_shares_alone():
    rng = np.random.default_rng(0)
    a = (rng.random(80) < 0.5).astype(float)
    b = np.where(rng.random(80) < 0.1, 1.0, a)
    paired = paired_share_difference_interval(a.tolist(), b.tolist())
    independent = share_difference_interval((a.sum(), 80), (b.sum(), 80))
    assert paired.estimate == independent.estimate
    assert paired.high - paired.low < 0.7 * (independent.high - independent.low)


@pytest.mark.parametrize("half", [False, True])
def test_the_paired_interval_keeps_its_level(half):
    """700 runs of 60 items that one of two models gets right a little more often; scores of a half are covered, too."""
    rng = np.random.default_rng(1)
    runs, covered = 700, 0
    for _ in range(runs):
        easy = rng.random(60)
        a, b = ((rng.random(60) < easy * share).astype(float) for share in (0.7, 0.9))
        if half:
            a, b = (np.where(rng.random(60) < 0.3, 0.5, side) for side in (a, b))
        truth = 0.1 * (0.7 if half else 1.0)
        interval = paired_share_difference_interval(a.tolist(), b.tolist())
        covered += interval.low <= truth <= interval.high
    assert covered / runs > 0.93


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, n)


def test_pairs_need_both_members():
    with pytest.raises(ValueError, match="same length"):
        paired_share_difference_interval([1.0], [])


@pytest.mark.parametrize("discordance", [0.05, 0.2, 0.5])
def test_without_a_difference_an_interval_excludes_it_as_rarely_as_it_promises(discordance):
    """Added up over all outcomes of a hundred pairs, of which so many differ, as often one way as the other."""
    n, above = 100, 0.0
    for better in range(n + 1):
        for worse in range(min(better, n - better)):
            same = n - better - worse
            chance = comb(n, better) * comb(n - better, worse) * (discordance / 2) ** (better + worse)
            chance *= (1 - discordance) ** same
            if chance > 1e-9:
                a = [0.0] * better + [1.0] * (worse + same)
                b = [1.0] * better + [0.0] * worse + [1.0] * same
                above += chance * (paired_share_difference_interval(a, b).low > 0)
    assert 0.0 < above < 0.032  # 2.5 % is promised
