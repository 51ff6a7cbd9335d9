"""The noise of a validation error: what the same configuration gives when only the seed changes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.nas.study import TERMS
from agentlab.study.noise import ASSUMED, Noise, estimate_noise, unstable

errors = st.floats(1e-3, 1e3)
groups = st.lists(st.lists(errors, max_size=6), max_size=6)
counts = st.integers(1, 50)


@given(groups)
def test_the_deviation_is_pooled_over_the_groups(error_groups: list[list[float]]) -> None:
    usable = [np.log(group) for group in error_groups if len(group) > 1]
    noise = estimate_noise(error_groups)
    if usable:
        within = np.concatenate([group - group.mean() for group in usable])
        freedom = sum(len(group) - 1 for group in usable)
        assert noise.deviation == pytest.approx(float(np.sqrt((within**2).sum() / freedom)), abs=1e-12)
        assert (noise.trainings, noise.freedom) == (len(within), freedom)
    else:
        assert noise == Noise(ASSUMED, trainings=0, freedom=0)


def test_one_group_gives_the_sample_deviation_of_its_logarithms() -> None:
    group = [0.50, 0.51, 0.47]
    assert estimate_noise([group]).deviation == pytest.approx(float(np.std(np.log(group), ddof=1)))


@given(errors, st.integers(2, 9))
def test_equal_values_have_no_noise(value: float, count: int) -> None:
    noise = estimate_noise([[value] * count])
    assert noise.deviation == pytest.approx(0.0, abs=1e-12)
    assert noise.trainings == count


@given(st.lists(st.lists(errors, min_size=2, max_size=5), min_size=1, max_size=4), st.floats(1e-3, 1e3))
def test_the_unit_of_the_error_does_not_matter(error_groups: list[list[float]], unit: float) -> None:
    scaled = [[unit * value for value in group] for group in error_groups]
    assert estimate_noise(scaled).deviation == pytest.approx(estimate_noise(error_groups).deviation, abs=1e-9)


@given(st.lists(errors, min_size=2, max_size=6), st.lists(st.lists(errors, max_size=1), max_size=4))
def test_a_trial_that_was_trained_once_says_nothing(group: list[float], single: list[list[float]]) -> None:
    assert estimate_noise([*single, group, *single]) == estimate_noise([group])


@given(st.floats(1e-4, 0.5), counts, counts)
def test_more_trainings_let_smaller_differences_count(deviation: float, first: int, second: int) -> None:
    noise = Noise(deviation)
    assert noise.limit(first + 1, second) < noise.limit(first, second)
    assert noise.limit(first, second) == noise.limit(second, first)
    assert noise.limit(first, second) == pytest.approx(1.96 * deviation * math.sqrt(1 / first + 1 / second))


@pytest.mark.parametrize("freedom", range(1, 11))
def test_few_trainings_widen_the_limit_as_students_t_does(freedom: int) -> None:
    from scipy.stats import t

    quantile = float(t.ppf(0.975, freedom))
    assert Noise(0.02, 20, freedom).limit(1, 1) == pytest.approx(quantile * 0.02 * math.sqrt(2), rel=2e-3)


def test_many_trainings_are_as_good_as_a_given_noise() -> None:
    assert Noise(0.02, 20, 11).limit(1, 2) == Noise(0.02).limit(1, 2)


@given(st.integers(1, 30), st.integers(1, 30), counts, counts)
def test_of_two_noises_the_less_certain_one_sets_the_width(mine: int, its: int, first: int, second: int) -> None:
    one, larger_noise = Noise(0.01, 40, mine), Noise(0.03, 40, its)
    width = Noise(1.0, 40, min(mine, its)).limit(1, 1) / math.sqrt(2)
    assert one.limit(first, second, larger_noise) == pytest.approx(
        width * math.sqrt(0.01**2 / first + 0.03**2 / second)
    )


def test_without_noise_every_difference_counts() -> None:
    assert Noise(0.0).limit(1, 1) == 0.0


def test_an_error_of_zero_is_measured_too() -> None:
    assert math.isfinite(estimate_noise([[0.0, 0.5]]).deviation)


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        (Noise(0.02), "was not measured; a standard deviation of 2.0% per training"),
        (Noise(0.0123, 3, 2), "by 1.23% (one standard deviation, measured on 3"),
    ],
)
def test_the_sentence_says_whether_it_was_measured(noise: Noise, words: str) -> None:
    assert words in noise.sentence(TERMS)


def test_two_seeds_of_a_chance_difference_are_rarely_taken_for_one() -> None:
    """The limit is about a 95 % one: of many pairs of one distribution, few differ beyond it."""
    rng = np.random.default_rng(0)
    pairs = np.exp(0.02 * rng.standard_normal((4000, 2)))
    beyond = np.abs(np.log(pairs[:, 0] / pairs[:, 1])) > Noise(0.02).limit(1, 1)
    assert 0.03 < beyond.mean() < 0.06


@pytest.mark.parametrize(
    ("errors", "shaky"), [([0.45, 0.63], True), ([0.45, 0.46, 0.44], False), ([0.45], False), ([], False)]
)
def test_trainings_that_scatter_are_told_from_those_that_do_not(errors: list[float], shaky: bool) -> None:
    assert unstable(errors) is shaky
