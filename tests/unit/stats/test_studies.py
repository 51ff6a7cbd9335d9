"""From measured values to a record: which sign is good, and when nothing was measured."""

from dataclasses import replace

import numpy as np
import pytest

from agentlab.stats.control import Comparison
from agentlab.stats.studies import full_study, light_study

LOWER = Comparison("llm", "gp alone", "validation MSE", "MSE", "lower", "20 trials")
HIGHER = replace(LOWER, metric="accuracy", unit="points", direction="higher")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_positive_is_better_whatever_the_direction():
    control, agent = np.arange(8) / 100 + 1.0, np.arange(8) / 100 + 0.5
    assert full_study(LOWER, agent, control, rng()).verdict == "helped"
    assert full_study(LOWER, agent, control, rng()).estimate == pytest.approx(0.5)
    assert full_study(HIGHER, agent, control, rng()).verdict == "hurt"
    assert full_study(HIGHER, agent, control, rng()).estimate == pytest.approx(-0.5)


def test_a_light_study_sees_harm_but_only_hints_at_help():
    by_agent = np.arange(12) % 2 == 0
    good = np.where(by_agent, 0.5, 1.0) + np.arange(12) / 1000
    assert light_study(LOWER, good, by_agent, rng()).verdict == "no_measurable_help"
    assert light_study(LOWER, good, by_agent, rng()).note
    assert light_study(HIGHER, good, by_agent, rng()).verdict == "hurt"


@pytest.mark.parametrize("by_agent", [[], [True], [True, True, True], [True, True, True, False]])
def test_an_arm_with_fewer_than_two_trials_is_not_measured(by_agent):
    record = light_study(LOWER, np.ones(len(by_agent)), by_agent, rng())
    assert record.verdict == "not_measured"
    assert record.n == len(by_agent)


def test_a_few_pairs_are_not_a_study():
    assert full_study(LOWER, [0.1], [0.2], rng()).verdict == "not_measured"
    assert full_study(LOWER, [0.1] * 5, [0.2] * 5, rng()).verdict == "not_measured"
    with pytest.raises(ValueError, match="both members"):
        full_study(LOWER, [0.1, 0.2], [0.2], rng())


def test_equal_arms_show_no_help():
    values = np.random.default_rng(1).normal(size=10)
    assert full_study(LOWER, values, values, rng()).verdict == "no_measurable_help"
