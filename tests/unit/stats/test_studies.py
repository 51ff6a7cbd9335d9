"""From measured values to a record: which sign is good, and when nothing was measured."""

from dataclasses import replace

import numpy as np
import pytest

from agentlab.stats.control import ControlComparison, verdict_sentence
from agentlab.stats.intervals import randomisation_interval
from agentlab.stats.studies import full_study, light_study

LOWER = ControlComparison("llm", "gp alone", "validation MSE", "MSE", "lower", "20 trials")
HIGHER = replace(LOWER, metric="accuracy", unit="points", direction="higher")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_positive_is_better_whatever_the_direction():
    control, agent = np.arange(8) / 100 + 1.0, np.arange(8) / 100 + 0.5
    assert full_study(LOWER, agent, control, rng()).verdict == "helped"
    assert full_study(LOWER, agent, control, rng()).estimate == pytest.approx(0.5)
    assert full_study(HIGHER, agent, control, rng()).verdict == "hurt"
    assert full_study(HIGHER, agent, control, rng()).estimate == pytest.approx(-0.5)


def test_a_light_study_only_hints():
    by_agent = np.arange(12) % 2 == 0
    good = np.where(by_agent, 0.5, 1.0) + np.arange(12) / 1000
    assert light_study(LOWER, good, by_agent, rng()).verdict == "no_measurable_help"
    assert light_study(LOWER, good, by_agent, rng()).note
    harm = light_study(HIGHER, good, by_agent, rng())
    assert (harm.verdict, "looks harmful" in harm.note) == ("no_measurable_help", True)


@pytest.mark.parametrize("by_agent", [[], [True], [True, True, True], [True, True, True, False]])
def test_an_arm_with_fewer_than_two_trials_is_not_measured(by_agent):
    record = light_study(LOWER, np.ones(len(by_agent)), by_agent, rng())
    assert record.verdict == "not_measured"
    assert record.n == len(by_agent)


def test_the_smallest_effect_of_a_light_study_is_shown_in_four_of_five_draws_of_its_coin():
    draws = np.random.default_rng(3)
    values, by_agent = draws.normal(size=20), np.arange(20) % 2 == 0
    record = light_study(HIGHER, values, by_agent, rng())
    assert record.smallest is not None
    assert record.estimate is not None
    without = values - record.estimate * by_agent
    significant_count = 0
    for _ in range(300):
        treated = draws.random(20) < 0.5
        significant_count += randomisation_interval(without + record.smallest * treated, treated, draws).low > 0
    assert 0.7 < significant_count / 300 < 0.9
    normal = 2.8 * 2 * without.std(ddof=1) / np.sqrt(20)
    assert record.smallest == pytest.approx(normal, rel=0.35)


@pytest.mark.parametrize("pairs", [0, 1, 5])
def test_a_few_pairs_are_not_a_study(pairs):
    record = full_study(LOWER, [0.1] * pairs, [0.2] * pairs, rng())
    assert record.verdict == "not_measured"
    assert record.note == f"only {pairs} of the 6 pairs needed"


def test_pairs_need_both_members_and_finite_values():
    with pytest.raises(ValueError, match="same length"):
        full_study(LOWER, [0.1, 0.2], [0.2], rng())
    with pytest.raises(ValueError, match="finite"):
        full_study(LOWER, [0.1, 0.2, 0.3, 0.4, 0.5, np.nan], np.ones(6), rng())


GAINS = np.array([0.03, 0.01, 0.05, 0.02, 0.04, 0.06])


def test_six_pairs_that_all_agree_are_the_fewest_that_show_anything():
    record = full_study(LOWER, 1 - GAINS, np.ones(6), rng())
    assert (record.verdict, record.level, record.n, record.p) == ("helped", 0.95, 6, 2 / 64)
    assert (record.low, record.high) == pytest.approx((0.01, 0.06))
    assert full_study(LOWER, 1 + GAINS, np.ones(6), rng()).verdict == "hurt"


@pytest.mark.parametrize("odd", [-1e-6, 0.0])
def test_five_of_six_do_not_say_helped_even_if_the_sixth_is_a_tie(odd):
    record = full_study(HIGHER, np.append(GAINS[:5] * 100, odd), np.zeros(6), rng())
    assert record.verdict == "no_measurable_help"
    assert record.smallest > record.estimate


@pytest.mark.parametrize("pairs", [6, 14, 20])
def test_six_pairs_carry_95_percent_without_a_note(pairs):
    record = full_study(LOWER, np.full(pairs, 0.9), np.ones(pairs), rng())
    assert (record.verdict, record.level, record.note) == ("helped", 0.95, "")


@pytest.mark.parametrize("pairs", [6, 8])
def test_without_an_effect_a_verdict_is_as_rare_as_the_level_says(pairs):
    """800 studies of skew-free noise with heavy tails; four standard errors above the nominal rate at most."""
    source = np.random.default_rng(pairs)
    records = [full_study(LOWER, source.standard_t(3, size=pairs), np.zeros(pairs), source) for _ in range(800)]
    wrong = np.mean([record.verdict in ("helped", "hurt") for record in records])
    nominal = 1 - records[0].level
    assert wrong < nominal + 4 * (nominal * (1 - nominal) / 800) ** 0.5
    assert wrong > 0  # the study can tell an effect at all


def test_equal_arms_show_no_help():
    values = np.random.default_rng(1).normal(size=10)
    assert full_study(LOWER, values, values, rng()).verdict == "no_measurable_help"


def test_trials_that_are_all_equal_measure_nothing():
    record = light_study(LOWER, np.ones(14), np.arange(14) % 2 == 0, rng())
    assert (record.verdict, record.note) == ("not_measured", "all 14 observations are equal")


def test_pairs_that_all_tie_do_not_say_what_would_have_been_shown():
    record = full_study(HIGHER, np.full(6, 0.7), np.full(6, 0.7), rng())
    assert (record.verdict, record.smallest) == ("no_measurable_help", None)
    assert verdict_sentence(record, "the agent", "pairs").endswith(
        "The smallest detectable gain is unknown: all differences are equal."
    )


def test_small_figures_are_told_with_digits_of_their_own():
    record = full_study(LOWER, 1e-6 * GAINS, 2e-6 * GAINS, rng())
    assert "+3.5e-08" not in verdict_sentence(record, "the agent", "pairs")
    assert "+0.000000035 [" in verdict_sentence(record, "the agent", "pairs")
