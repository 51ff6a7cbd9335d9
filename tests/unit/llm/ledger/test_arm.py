"""Evidence about a model: what is counted, how it fades, and how quickly a change of speed is noticed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.llm.ledger.arm import Arm, AttemptSample
from agentlab.llm.types import Usage

DAY = 86_400.0


def sample(
    at: float = 0,
    *,
    error: str | None = None,
    first: float | None = 1.0,
    total: float = 3.0,
    tokens: int | None = 101,
    usd: float | None = None,
) -> AttemptSample:
    return AttemptSample(at, "task", "model", "provider", error, Usage(10, tokens, usd), first, total, "")


def after(*samples: AttemptSample) -> Arm:
    arm = Arm()
    for one in samples:
        arm = arm.with_sample(one)
    return arm


def test_an_answer_counts_with_its_times_and_cost():
    arm = after(sample(5, usd=0.02))
    assert (arm.successes, arm.failures, arm.at) == (1, 0, 5)
    assert (arm.first_count, arm.first_mean) == (1, 0)
    assert arm.rate_mean == pytest.approx(math.log(0.02))
    assert (arm.cost_sum, arm.cost_tokens) == (0.02, 101)


def test_a_failure_says_nothing_of_speed_and_cost():
    assert after(sample(5, error="ServerFaultError", usd=1)) == Arm(failures=1, at=5)


@pytest.mark.parametrize("error", ["LLMCancelledError", "BudgetExceededError", "HostBusyError"])
def test_what_is_not_the_models_doing_is_not_counted(error):
    assert after(sample(5, error=error)) == Arm()


def test_an_answer_that_came_whole_has_no_seconds_per_token():
    arm = after(sample(first=None))
    assert arm.first_mean == pytest.approx(math.log(3))
    assert arm.rate_count == 0


@pytest.mark.parametrize("tokens", [None, 0, 1])
def test_too_few_tokens_have_no_rate(tokens):
    assert after(sample(tokens=tokens)).rate_count == 0


def test_an_unknown_cost_is_not_a_cost_of_nothing():
    arm = after(sample(usd=None), sample(usd=0.5, tokens=100))
    assert arm.cost_tokens == 100


def test_qualities_are_summed_and_cut_to_their_range():
    arm = Arm().with_quality(1, 0.5).with_quality(1, 7).with_quality(1, -7)
    assert (arm.quality_sum, arm.quality_count, arm.at) == (1.5, 3, 1)


def test_a_call_fades_to_half_within_200_calls_and_within_a_week():
    arm = Arm(successes=1, quality_sum=1, quality_count=1)
    for _ in range(200):
        arm = arm.with_sample(sample(error="ServerFaultError"))
    assert arm.successes == pytest.approx(0.5)
    assert arm.quality_count == pytest.approx(0.5)
    assert Arm(successes=1, first_count=1).with_decay(7 * DAY).successes == pytest.approx(0.5)
    assert Arm(successes=1, first_count=1).with_decay(7 * DAY).first_count == pytest.approx(0.5)


def test_a_view_is_dated_by_its_evidence_and_a_clock_that_runs_backwards_adds_none():
    arm = after(sample(10))
    assert arm.with_decay(DAY).at == 10
    assert arm.with_decay(-DAY) == arm
    assert arm.with_sample(sample(3)).at == 10


def test_a_tenfold_slowdown_is_believed_after_a_few_calls_and_a_straggler_is_soon_forgotten():
    arm = after(*(sample(first=math.exp(0.3 * (-1) ** call)) for call in range(50)))
    once = arm.with_sample(sample(first=10))
    assert math.exp(once.first_mean) < 3
    back = once
    for _ in range(5):
        back = back.with_sample(sample(first=1))
    assert math.exp(back.first_mean) < 1.6
    often = once
    for _ in range(5):
        often = often.with_sample(sample(first=10))
    assert math.exp(often.first_mean) > 5


SAMPLES = st.builds(
    sample,
    st.floats(0, 100 * DAY),
    error=st.sampled_from([None, None, "LLMTimeoutError", "LLMCancelledError"]),
    first=st.none() | st.floats(0, 1e4),
    total=st.floats(0, 1e4),
    tokens=st.none() | st.integers(0, 10**6),
    usd=st.none() | st.floats(0, 100),
)


@given(st.lists(SAMPLES | st.floats(0, 1), max_size=40), st.floats(0, 1000 * DAY))
def test_no_evidence_makes_an_arm_that_cannot_be(events, now):
    arm = Arm()
    for event in events:
        arm = arm.with_sample(event) if isinstance(event, AttemptSample) else arm.with_quality(arm.at, event)
    for one in (arm, arm.with_decay(now)):
        assert min(one.successes, one.failures, one.first_count, one.rate_count, one.cost_sum, one.cost_tokens) >= 0
        assert 0 <= one.quality_sum <= one.quality_count + 1e-9
        assert min(one.first_m2, one.rate_m2) >= 0
        assert all(math.isfinite(getattr(one, name)) for name in Arm.__slots__)
        assert one.successes <= 1 / (1 - 0.5 ** (1 / 200)) + 1
        assert one.first_count <= 1 / (1 - 0.5 ** (1 / 10)) + 1
