"""When a queue grows, and which load is tried next."""

import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.bench.load.records import Record
from agentlab.bench.load.stages import SweepStep, bracket, is_rising, next_value


def served(rate: float, service: float, servers: int, requests: int, seed: int) -> list[Record]:
    """Readings of a queue with Poisson arrivals and a constant service time."""
    draw = random.Random(seed)
    free, at, readings = [0.0] * servers, 0.0, []
    for index in range(requests):
        at += draw.expovariate(rate)
        start = max(at, min(free))
        free[free.index(min(free))] = start + service
        readings.append(Record(index, at, at, stamps=array("d", [start + 0.1]), ended=start + service))
    return readings


def as_seen(readings: list[Record], now: float) -> list[Record]:
    """What is known of them at a moment."""
    seen = []
    for r in readings:
        if r.sent <= now:
            stamps = array("d", [stamp for stamp in r.stamps if stamp <= now])
            seen.append(Record(r.index, r.scheduled, r.sent, stamps, ended=r.ended if (r.ended or 0) <= now else None))
    return seen


@pytest.mark.parametrize("seed", range(5))
def test_a_queue_fed_faster_than_it_is_served_is_rising(seed: int) -> None:
    readings = served(rate=20, service=0.1, servers=1, requests=100, seed=seed)  # twice what it can do
    last = readings[-1].sent
    assert is_rising(as_seen(readings, last), last)


@pytest.mark.parametrize("seed", range(5))
def test_a_queue_that_fluctuates_is_not(seed: int) -> None:
    readings = served(rate=5, service=0.1, servers=1, requests=200, seed=seed)  # half of what it can do
    assert not any(is_rising(as_seen(readings, r.sent), r.sent) for r in readings)


def test_nothing_is_said_about_a_few_requests() -> None:
    assert not is_rising(served(100, 10, 1, 15, 0), 1.0)


@given(st.floats(0.01, 1000), st.floats(0.05, 20))
def test_a_sweep_over_rates_ends_within_a_tenth_of_the_limit(limit: float, start: float) -> None:
    steps: list[SweepStep] = []
    while (value := next_value(steps, start, whole_numbers=False)) is not None:
        steps.append(SweepStep(value, value <= limit))
        assert len(steps) < 40
    good, bad = bracket(steps)
    assert good is not None
    assert bad is not None
    assert good <= limit < bad <= 1.1 * good


@given(st.integers(1, 400))
def test_a_sweep_over_requests_at_a_time_tries_whole_numbers_once(limit: int) -> None:
    steps: list[SweepStep] = []
    while (value := next_value(steps, 1, whole_numbers=True)) is not None:
        assert value == int(value)
        assert value not in [step.value for step in steps]
        steps.append(SweepStep(value, value <= limit))
    good, bad = bracket(steps)
    assert good is not None
    assert good <= limit
    assert bad is None or limit < bad <= max(good + 1, 1.15 * good)


def test_a_target_that_carries_nothing_is_given_up() -> None:
    steps: list[SweepStep] = []
    while (value := next_value(steps, 1.0, whole_numbers=False)) is not None:
        steps.append(SweepStep(value, good=False))
    assert len(steps) < 15
    assert next_value([SweepStep(1, good=False)], 1, whole_numbers=True) is None


def test_a_lucky_step_above_a_bad_one_does_not_count() -> None:
    assert bracket([SweepStep(1, True), SweepStep(4, False), SweepStep(8, True)]) == (1, 4)
