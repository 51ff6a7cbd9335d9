"""Whose turn it is, and for how long."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.llm.admission import after_overflow, turn_end
from agentlab.llm.provider_config import Price
from agentlab.llm.question import RouterCandidate


def windows(*contexts):
    return [
        RouterCandidate(str(context), "id", "p", context, Price(input=0, output=0), 9.0, ()) for context in contexts
    ]


def test_after_an_overflow_larger_and_unknown_windows_come_first_and_those_that_cannot_hold_it_are_left_out():
    assert after_overflow(windows(2048, None, 1024, 8192), 2048, 1500) == windows(None, 8192, 2048)
    assert after_overflow(windows(2048, None), None, 1500) == windows(2048, None)


def ends(*clocks):
    """When each turn ends if nobody answers."""
    elapsed, end_times = 0.0, []
    for index in range(len(clocks)):
        elapsed = turn_end(elapsed, clocks[index:])
        end_times.append(elapsed)
    return end_times


@pytest.mark.parametrize(
    ("clocks", "turns"),
    [
        ([10], [10]),
        ([10, 10, 10, 10], [7, 8, 9, 10]),
        ([200, 200, 200], [160, 180, 200]),
        ([4, 4, 4, 4], [1, 2, 3, 4]),
        ([2, 2, 2, 2], [0.5, 1, 1.5, 2]),  # less than a second for each: even parts
        ([0.4, 0.4], [0.2, 0.4]),
        ([600, 200], [180, 200]),  # a patient local model in front of a hosted one
        ([200, 600], [200, 600]),
    ],
)
def test_every_turn_leaves_those_behind_it_theirs(clocks, turns):
    assert ends(*clocks) == pytest.approx(turns)


def test_what_earlier_turns_did_not_need_is_the_next_ones():
    assert turn_end(0.5, [10, 10]) == 9
    assert turn_end(9.5, [10, 10]) == pytest.approx(9.75)


@given(st.floats(0.01, 1000), st.integers(1, 40))
def test_shares_of_one_clock_sum_up_to_it_and_everybody_has_one(total, count):
    times = [0.0, *ends(*[total] * count)]
    assert times[-1] == pytest.approx(total)
    minimum = min(max(total / 10, 1.0), total / count)
    assert all(after - before >= minimum * (1 - 1e-6) for before, after in pairwise(times))


@given(st.lists(st.floats(0.1, 1000), min_size=1, max_size=8))
def test_no_turn_outlives_its_own_clock(clocks):
    now = 0.0
    for index, clock in enumerate(clocks):
        later_clocks = [later_clock for later_clock in clocks[index + 1 :] if later_clock > now]
        if clock <= now:
            continue
        end = turn_end(now, [clock, *later_clocks])
        assert now < end <= clock * (1 + 1e-9)
        now = end
