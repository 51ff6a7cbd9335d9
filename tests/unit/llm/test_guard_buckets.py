"""Token buckets: the rate holds over any span, waiting as told is enough, and nothing waits for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.llm.guard import Bucket

REQUESTS = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 40_000)), min_size=1, max_size=40)


@given(st.integers(1, 100_000), REQUESTS)
def test_what_is_let_through_never_exceeds_the_rate(per_minute, requests):
    bucket, now, used = Bucket(per_minute), 0.0, []
    for pause, units in requests:
        now += pause
        now += bucket.delay(now, units)
        bucket.take(now, units)
        used.append((now, units))
    for first in range(len(used)):
        for last in range(first, len(used)):
            span, units = used[last][0] - used[first][0], [units for _, units in used[first : last + 1]]
            # only the last may be larger than what is there, if it is larger than the bucket
            excess = max(0.0, units[-1] - bucket.capacity)
            assert sum(units) <= bucket.capacity + bucket.rate * span + excess + 1e-6 * sum(units)


@given(st.integers(1, 100_000), st.integers(0, 10**7), st.integers(0, 10**7), st.floats(0, 1e6))
def test_waiting_as_long_as_told_is_enough(per_minute, used, amount, now):
    bucket = Bucket(per_minute)
    bucket.take(now, used)
    later = now + bucket.delay(now, amount)
    assert bucket.delay(later, amount) <= 1e-6 * max(1.0, later)


def test_a_request_larger_than_the_bucket_waits_until_it_is_full_and_the_next_one_pays():
    bucket = Bucket(600)  # ten a second, a hundred at once
    assert bucket.delay(0, 1000) == 0
    bucket.take(0, 1000)
    assert bucket.delay(0, 1) == pytest.approx(90.1)
    assert bucket.delay(0, 1000) == pytest.approx(100)
    assert bucket.delay(100, 1000) == 0


def test_what_was_not_used_is_given_back_up_to_the_capacity():
    bucket = Bucket(600)
    bucket.take(0, 100)
    assert bucket.delay(0, 50) == pytest.approx(5)
    bucket.take(0, -60)
    assert bucket.delay(0, 50) == 0
    bucket.take(0, -1000)
    bucket.take(0, 100)
    assert bucket.delay(0, 1) > 0


def test_one_a_minute_lets_one_through_at_once():
    bucket = Bucket(1)
    assert bucket.delay(0, 1) == 0
    bucket.take(0, 1)
    assert bucket.delay(0, 1) == pytest.approx(60)
