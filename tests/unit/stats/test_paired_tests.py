"""The referee: exact tests, intervals that agree with them, families, and what as much data would have shown."""

import math
from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.stats.control import least_pairs
from agentlab.stats.paired_tests import (
    compare,
    compare_family,
    deviation_range,
    mcnemar_power,
    smallest_share_difference,
    smallest_shift,
)

scores = st.integers(6, 10).flatmap(
    lambda n: st.lists(st.floats(-100, 100).map(lambda x: round(x, 3) + 0.5), min_size=n, max_size=n)
)
marks = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*[st.lists(st.booleans(), min_size=n, max_size=n) for _ in range(2)])
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def discordant(wins: int, losses: int, n: int) -> tuple[list[bool], list[bool]]:
    same = [True] * (n - wins - losses)
    return [True] * wins + [False] * losses + same, [False] * wins + [True] * losses + same


@pytest.mark.parametrize(
    ("wins", "losses", "p"), [(7, 1, 9 / 128), (5, 4, 1.0), (6, 0, 0.03125), (0, 0, 1.0), (1, 9, 11 / 512)]
)
def test_items_are_tested_by_mcnemar_with_the_smaller_tail_twice(wins: int, losses: int, p: float) -> None:
    assert compare(*discordant(wins, losses, 120), rng()).p == pytest.approx(p)


def test_what_the_test_does_not_reject_touches_zero() -> None:
    evidence = compare(*discordant(7, 1, 120), rng())
    assert (evidence.estimate, evidence.low) == (0.05, 0.0)
    assert evidence.smallest == pytest.approx(0.069, abs=0.001)


@given(marks)
def test_an_interval_of_shares_excludes_zero_where_the_test_rejects(sides: tuple[list[bool], list[bool]]) -> None:
    evidence = compare(*sides, rng())
    assert (evidence.low > 0 or evidence.high < 0) == (evidence.p <= 0.05)
    assert evidence.low <= evidence.estimate <= evidence.high


@given(scores)
def test_an_interval_of_pairs_excludes_zero_where_the_test_rejects(differences: list[float]) -> None:
    """The test is enumerated here once more, the plain way."""
    evidence = compare(differences, np.zeros(len(differences)), rng())
    d = np.array(differences)
    sums = [float((np.array(signs) * d).sum()) for signs in product((1, -1), repeat=len(d))]
    tails = [sum(side * value >= side * d.sum() - 1e-9 for value in sums) / len(sums) for side in (1, -1)]
    assert evidence.p == pytest.approx(min(1.0, 2 * min(tails)))
    assert (evidence.low > 0 or evidence.high < 0) == (evidence.p <= 0.05)


@given(scores, st.floats(-5, 5))
def test_swapped_rivals_mirror_the_evidence(differences: list[float], shift: float) -> None:
    rival = np.full(len(differences), shift)
    one, mirrored = compare(differences, rival, rng()), compare(rival, differences, rng())
    assert (one.low, one.high, one.p) == pytest.approx((-mirrored.high, -mirrored.low, mirrored.p))


def test_five_pairs_bound_nothing_and_six_do() -> None:
    assert math.isinf(compare([1.0, 1.1, 0.9, 1.2, 0.8], np.zeros(5), rng()).low)
    assert compare([1.0, 1.1, 0.9, 1.2, 0.8, 1.05], np.zeros(6), rng()).low == 0.8
    assert (least_pairs(), least_pairs(3)) == (6, 7)


def test_many_pairs_are_drawn_and_repeatable() -> None:
    differences = rng(2).normal(1, 1, size=40)
    first, second = (compare(differences, np.zeros(40), rng(9)) for _ in range(2))
    assert first == second
    assert 0 < first.low < 1 < first.high + 0.5


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0]), ([math.nan], [0.0]), ([math.inf], [0.0])])
def test_what_is_no_comparison_is_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"same length|finite"):
        compare(ours, theirs, rng())


# -- families ---------------------------------------------------------------------------------------------------------


def test_a_family_steps_down_and_stops() -> None:
    """Holm by hand: p of .0005, .0156, .0703 against 1.67, 2.5 and 5 %."""
    rivals = {"no": discordant(7, 1, 100), "sure": discordant(12, 0, 100), "yes": discordant(7, 0, 100)}
    family = compare_family(rivals, rng())
    assert list(family) == ["no", "sure", "yes"]
    assert [family[name].level for name in ("sure", "yes", "no")] == pytest.approx([1 - 0.05 / 3, 0.975, 0.95])
    assert [family[name].low > 0 for name in ("sure", "yes", "no")] == [True, True, False]


def test_after_the_first_that_shows_nothing_none_does() -> None:
    rivals = {n: discordant(7, 0, 100) for n in range(4)}  # p of .0156 each, above the first step of 1.25 %
    assert all(evidence.low <= 0 for evidence in compare_family(rivals, rng()).values())


def test_what_a_rival_would_have_shown_is_told_at_the_step_that_it_would_have_been_tested_at() -> None:
    """The first rejects, so the second is tested at 2.5 %; the third would be, too, if its difference were larger."""
    family = compare_family(
        {"a": discordant(12, 0, 100), "b": discordant(3, 2, 100), "c": discordant(2, 3, 100)}, rng()
    )
    assert family["a"].low > 0
    assert family["b"].smallest == family["c"].smallest == smallest_share_difference(100, 6 / 102, 0.975)


def test_differences_that_are_all_equal_do_not_say_what_would_have_been_shown() -> None:
    evidence = compare([0.5] * 10, [0.2] * 10, rng())
    assert (evidence.smallest, evidence.supposing) == (None, "all differences are equal")


def test_an_empty_family_says_nothing() -> None:
    assert compare_family({}, rng()) == {}


# -- what would have been shown ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "discordance"), [(20, 0.5), (60, 0.2), (100, 0.3), (240, 0.08)])
def test_the_smallest_difference_of_shares_is_shown_by_four_of_five_studies(n: int, discordance: float) -> None:
    smallest_difference = smallest_share_difference(n, discordance)
    assert smallest_difference is not None
    generator, significant_count = rng(1), 0
    wins = generator.binomial(n, discordance, size=4000)
    for differing in wins:
        won = generator.binomial(differing, (1 + smallest_difference / max(discordance, smallest_difference)) / 2)
        tail = sum(comb(int(differing), k) for k in range(won, differing + 1)) / 2.0**differing
        significant_count += 2 * tail <= 0.05
    assert significant_count / 4000 == pytest.approx(0.8, abs=0.025)


def test_few_items_show_a_large_difference_or_none() -> None:
    assert smallest_share_difference(5, 0.5) is None
    assert smallest_share_difference(6, 0.5) > 0.9  # type: ignore[operator] # there is one
    ordered = [smallest_share_difference(n, q) for n, q in ((1000, 0.2), (100, 0.2), (100, 0.4))]
    assert ordered == sorted(ordered)  # type: ignore[type-var] # numbers


@pytest.mark.parametrize("discordance", [0.01, 0.1, 0.3])
def test_without_a_difference_items_err_at_most_at_the_level(discordance: float) -> None:
    assert max(2 * mcnemar_power(n, discordance, 0.0) for n in (20, 60, 150)) <= 0.05 + 1e-9


@pytest.mark.parametrize("pairs", [6, 8, 20])
def test_the_smallest_shift_is_shown_by_four_of_five_studies(pairs: int) -> None:
    shift = smallest_shift(pairs)
    assert shift is not None
    generator = rng(pairs)
    verdicts = [compare(generator.normal(shift, 1, pairs), np.zeros(pairs), generator).low > 0 for _ in range(400)]
    assert np.mean(verdicts) == pytest.approx(0.8, abs=0.07)


def test_eight_pairs_show_a_fifth_more_than_a_deviation_and_five_nothing() -> None:
    assert smallest_shift(8) == pytest.approx(1.2, abs=0.03)
    assert smallest_shift(8, 1 - 0.05 / 3) == pytest.approx(1.56, abs=0.04)
    assert smallest_shift(5) is None
    assert smallest_shift(200) == pytest.approx(2.8 / math.sqrt(200), abs=0.002)


def test_a_deviation_of_few_values_is_known_roughly() -> None:
    low, high = deviation_range(1.0, 8)
    assert (low, high) == pytest.approx((math.sqrt(7 / 12.02), math.sqrt(7 / 2.83)), rel=0.02)  # chi-squared, 7 degrees
