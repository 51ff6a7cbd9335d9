"""Quantiles from buckets: near the exact ones, and the same whether counted together or apart."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agentlab.llm.ledger.rows import bucket_of, quantile

DURATIONS = st.lists(st.floats(1e-5, 1e5), min_size=1, max_size=200)


@given(DURATIONS, st.sampled_from([0.5, 0.9]))
def test_a_quantile_is_near_an_observed_duration(durations, share):
    exact = sorted(durations)[-int(-share * len(durations) // 1) - 1]
    assert abs(quantile(Counter(map(bucket_of, durations)), share) / exact - 1) < 0.0452


@given(DURATIONS, DURATIONS)
def test_histograms_add_up(some, extra):
    together = Counter(map(bucket_of, some + extra))
    histogram_sum = Counter(map(bucket_of, some)) + Counter(map(bucket_of, extra))
    assert together == histogram_sum
    low, high = sorted(quantile(Counter(map(bucket_of, part)), 0.9) for part in (some, extra))
    assert low <= quantile(histogram_sum, 0.9) <= high


@given(st.floats(), st.floats())
def test_a_longer_duration_never_falls_into_a_lower_bucket(a, b):
    if a <= b < float("inf") and a > float("-inf"):
        assert bucket_of(a) <= bucket_of(b)


def test_nothing_counted_has_no_quantile_and_zero_seconds_have_a_bucket():
    assert quantile({}, 0.5) is None
    assert 0 < quantile({bucket_of(0.0): 1}, 0.5) < 2e-6
