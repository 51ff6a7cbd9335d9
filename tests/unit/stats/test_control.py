"""The verdict: what an interval allows to say, and that a light control never says `helped`."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentlab.stats.control import Comparison, Control, Interval, judge, not_measured

WHAT = Comparison("llm", "gp alone", "validation MSE", "MSE", "lower", "20 trials")
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


def test_a_light_control_may_say_that_it_hurt():
    assert judge(WHAT, 12, interval(-0.5, -0.1), "light").verdict == "hurt"


@given(ends, ends)
def test_a_light_control_never_says_helped(a, b):
    assert judge(WHAT, 12, interval(min(a, b), max(a, b)), "light").verdict != "helped"


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
