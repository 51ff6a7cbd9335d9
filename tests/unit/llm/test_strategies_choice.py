"""Which model comes first: by speed, or by what one draw from the evidence makes of quality, speed and cost."""

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.llm.config import Weights
from agentlab.llm.ledger.arm import Arm
from agentlab.llm.strategies import CHANGES, by_speed, hedge_after, thompson

NAMES = ("a", "b", "c")
WEIGHTS = Weights()


def arm(
    *, first: float = 1.0, rate: float = 0.01, ok: float = 50, bad: float = 0, good: float = 0.9, usd: float = 0, at=0.0
) -> Arm:
    """Much evidence, hardly scattered."""
    return Arm(ok, bad, good * 50, 50, 15, math.log(first), 0.1, 15, math.log(rate), 0.1, usd * 50, 50 * 200, at)


def firsts(arms: dict[str, Arm], names=NAMES, weights=WEIGHTS, draws: int = 400) -> Counter[str]:
    rng = Random(1)
    return Counter(thompson(names, arms, weights, 200, rng)[0] for _ in range(draws))


def test_fastest_orders_by_expected_seconds():
    arms = {"a": arm(first=3), "b": arm(first=1), "c": arm(first=0.1, rate=0.1)}
    assert by_speed(NAMES, arms, Random(0)) == ["b", "a", "c"]


def test_fastest_counts_failures_as_time_lost():
    arms = {"a": arm(first=1, ok=10, bad=40), "b": arm(first=2)}
    assert by_speed(("a", "b"), arms, Random(0)) == ["b", "a"]


def test_fastest_tries_the_untried_in_any_order_and_those_that_only_failed_last():
    arms = {"a": arm(), "b": Arm(failures=20)}
    orders = {tuple(by_speed(("a", "b", "c", "d"), arms, Random(seed))) for seed in range(20)}
    assert orders == {("c", "d", "a", "b"), ("d", "c", "a", "b")}


def test_fastest_tries_a_slow_one_again_after_a_while_and_not_at_once():
    arms = {"a": arm(first=20, at=0), "b": arm(first=1, at=CHANGES)}
    rng = Random(0)
    later = Counter(by_speed(("a", "b"), arms, rng)[0] for _ in range(400))
    assert 40 < later["a"] < 320
    assert {by_speed(("a", "b"), arms | {"a": arm(first=20, at=CHANGES)}, rng)[0] for _ in range(400)} == {"b"}


@pytest.mark.parametrize(
    "better",
    [{"good": 1.0}, {"first": 0.1, "rate": 0.001}, {"usd": 0}],
)
def test_adaptive_prefers_what_is_better_all_else_equal(better):
    worse = {"good": 0.4, "first": 30.0, "usd": 0.5}
    arms = {"a": arm(**{name: worse[name] for name in better if name in worse}), "b": arm(**better)}
    assert firsts(arms, ("a", "b"))["b"] > 300


def test_weights_decide_between_good_and_quick():
    arms = {"good": arm(good=0.95, first=30), "quick": arm(good=0.6, first=0.5)}
    names = tuple(arms)
    assert firsts(arms, names, Weights(quality=1, latency=0, cost=0))["good"] > 390
    assert firsts(arms, names, Weights(quality=0.1, latency=1, cost=0))["quick"] > 390


def test_failing_never_makes_an_expensive_model_better():
    arms = {"a": arm(usd=50, ok=50), "b": arm(usd=50, ok=5, bad=45)}
    assert firsts(arms, ("a", "b"), Weights(quality=0, latency=0, cost=1))["a"] > 390


def test_the_untried_are_tried_and_the_bad_are_not_given_up():
    tried = firsts({"a": arm(good=0.6), "b": arm(good=0.1)})
    assert tried["c"] > 20
    assert tried["a"] > tried["b"]


def test_while_nothing_was_judged_speed_and_cost_decide():
    arms = {
        name: Arm(50, 0, 0, 0, 15, math.log(first), 0.1, 15, math.log(0.01), 0.1)
        for name, first in {"a": 20.0, "b": 0.5}.items()
    }
    assert firsts(arms, ("a", "b"))["b"] > 390


def test_a_model_that_was_slow_is_tried_again_after_a_while():
    slow = {"a": arm(first=100, good=0.9, at=0), "b": arm(first=1, good=0.7, at=0)}
    weights = Weights(latency=0.5)
    assert firsts(slow, ("a", "b"), weights)["a"] == 0
    assert firsts(slow | {"b": arm(first=1, good=0.7, at=CHANGES)}, ("a", "b"), weights)["a"] > 40


def test_a_seed_reproduces():
    arms = {"a": arm(), "b": arm(good=0.85)}
    for order in (lambda rng: thompson(NAMES, arms, WEIGHTS, 200, rng), lambda rng: by_speed(NAMES, arms, rng)):
        assert [order(Random(7)) for _ in range(3)] == [order(Random(7))] * 3


COUNTS = st.floats(0, 300)
LOGS = st.floats(-14, 14)
ARMS = st.builds(
    lambda ok, bad, share, judged, n, mean, m2, rate, usd, at: Arm(
        ok, bad, share * judged, judged, n, mean, m2, n, rate, m2, usd, usd * 100, at
    ),
    COUNTS,
    COUNTS,
    st.floats(0, 1),
    COUNTS,
    COUNTS,
    LOGS,
    COUNTS,
    LOGS,
    st.floats(0, 100),
    st.floats(0, 1e9),
)


@given(st.dictionaries(st.sampled_from("abcde"), ARMS), st.integers(0, 2**32), st.integers(0, 100_000))
def test_every_model_appears_once_whatever_the_evidence(arms, seed, tokens):
    names = list("abcdef")
    assert sorted(by_speed(names, arms, Random(seed))) == names
    assert sorted(thompson(names, arms, WEIGHTS, tokens, Random(seed))) == names
    assert by_speed([], arms, Random(seed)) == thompson([], arms, WEIGHTS, tokens, Random(seed)) == []


def test_a_hedge_waits_for_the_ninetieth_percentile():
    rng = Random(0)
    times = [rng.gauss(0.5, 0.4) for _ in range(2000)]
    mean = sum(times) / len(times)
    arm = Arm(first_count=2000, first_mean=mean, first_m2=sum((time - mean) ** 2 for time in times))
    after = hedge_after(arm)
    assert after is not None
    assert sum(math.exp(time) <= after for time in times) / len(times) == pytest.approx(0.9, abs=0.02)


def test_without_evidence_there_is_no_hedge():
    assert hedge_after(Arm()) is None
    assert hedge_after(Arm(first_count=4)) is None
