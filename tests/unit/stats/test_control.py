"""The verdict: what an interval allows to say, and that a light control never says `helped`."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentlab.stats.control import Control, ControlComparison, Evidence, Interval, judge, not_measured, verdict_sentence

WHAT = ControlComparison("llm", "gp alone", "validation MSE", "MSE", "lower", "20 trials")
ends = st.floats(-10, 10)


def interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2 if math.isfinite(low + high) else 0.0, low, high, 0.95, "made up")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.5, "helped"),
        (0.0, 0.5, "no_measurable_help"),
        (-0.2, 0.5, "no_measurable_help"),
        (-0.5, 0.0, "no_measurable_help"),
        (-0.5, -0.1, "hurt"),
    ],
)
def test_a_full_study_says_what_the_interval_says(low, high, verdict):
    assert judge(WHAT, 12, interval(low, high), "full").verdict == verdict


def test_a_light_control_points_to_the_full_one_instead_of_claiming_help():
    record = judge(WHAT, 12, interval(0.1, 0.5), "light")
    assert record.verdict == "no_measurable_help"
    assert "paired studies" in record.note
    assert (record.estimate, record.low) == (0.3, 0.1)


def test_a_light_control_points_there_instead_of_claiming_harm():
    record = judge(WHAT, 12, interval(-0.5, -0.1), "light")
    assert (record.verdict, record.high) == ("no_measurable_help", -0.1)
    assert "looks harmful" in record.note


@given(ends, ends)
def test_a_light_control_says_neither_helped_nor_hurt(a, b):
    assert judge(WHAT, 12, interval(min(a, b), max(a, b)), "light").verdict == "no_measurable_help"


@pytest.mark.parametrize(
    ("low", "high", "begins"),
    [
        (
            0.1,
            0.5,
            "The agent helped: a gain in validation MSE of +0.3000 [+0.1000, +0.5000] over gp alone, on 12",
        ),
        (-0.5, -0.1, "The agent hurt: a gain in validation MSE of -0.3000 [-0.5000, -0.1000] over gp alone"),
        (-0.1, 0.5, "No measurable help from the agent: a gain in validation MSE of +0.2000"),
    ],
)
def test_a_verdict_is_a_sentence(low, high, begins):
    assert verdict_sentence(judge(WHAT, 12, interval(low, high), "full"), "the agent", "pairs").startswith(begins)


def test_where_nothing_is_shown_the_sentence_says_what_would_have_been():
    share = replace(WHAT, unit="share of questions", direction="higher")
    evidence = Evidence(0.02, -0.01, 0.05, 0.95, "a test", 200, 0.21, 0.06, "8 % differ")
    sentence = verdict_sentence(judge(share, 200, evidence, "full"), "the agent", "questions")
    assert "of +2.0 points [-1.0, +5.0]" in sentence
    assert "p = 0.21" in sentence
    assert sentence.endswith("With 80% power, a gain of 6.0 points or more would have been detected (8 % differ).")


def test_what_was_not_measured_is_said_with_its_reason():
    sentence = verdict_sentence(not_measured(WHAT, 1, 0.95, "1 of at least 6 pairs"), "the agent", "pairs")
    assert sentence == "Whether the agent helped was not measured: 1 of at least 6 pairs."


@pytest.mark.parametrize(("low", "high"), [(-math.inf, math.inf), (0.1, math.inf), (-math.inf, -0.1)])
def test_an_unbounded_interval_is_no_measurement(low, high):
    record = judge(WHAT, 4, interval(low, high), "full")
    assert record.verdict == "not_measured"
    assert (record.estimate, record.low, record.high) == (None, None, None)
    assert "4 observations" in record.note


def test_the_record_survives_json():
    for record in (judge(WHAT, 12, interval(0.1, 0.5), "full"), not_measured(WHAT, 1, 0.95, "one trial")):
        assert Control.model_validate_json(record.model_dump_json()) == record


def test_the_record_refuses_what_json_cannot_hold():
    record = judge(WHAT, 12, interval(0.1, 0.5), "full").model_dump()
    with pytest.raises(ValidationError):
        Control.model_validate({**record, "high": math.inf})
