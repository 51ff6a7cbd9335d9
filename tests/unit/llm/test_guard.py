"""Guards: what an error means for the next calls of a model, and for all models of its provider."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab import errors
from agentlab.llm.guard import LONGEST_COOL_DOWN, QUOTA_COOL_DOWN, ModelGuard, ProviderGuard, Slots
from agentlab.llm.provider_config import ProviderLimits

TIMEOUT = errors.LLMTimeoutError("slow")


def guard(**limits: int) -> ModelGuard:
    return ModelGuard(ProviderGuard(ProviderLimits(**limits)))


def call(model: ModelGuard, now: float, error: errors.AgentlabError | None = None, tokens: int | None = None) -> None:
    model.leave(now, model.enter(now, 10), error, tokens)


def limited(retry_after: float | None = None) -> errors.RateLimitedError:
    return errors.RateLimitedError("too much", retry_after=retry_after)


def test_a_fresh_model_may_be_asked():
    model = guard()
    assert model.delay(0, 1000) == 0
    assert model.state(0) == "closed"


@pytest.mark.parametrize(
    "error", [TIMEOUT, errors.ServerFaultError("x"), errors.MalformedReplyError("x"), errors.LLMTruncatedError("x")]
)
def test_faults_of_the_service_open_the_breaker(error):
    model = guard()
    for _ in range(5):
        call(model, 0, error)
    assert model.state(0) == "open"
    assert model.delay(0, 10) == 5
    assert model.probing_helps


def test_connections_that_fail_open_it_sooner():
    model = guard()
    for _ in range(3):
        call(model, 0, errors.LLMConnectionError("refused"))
    assert model.state(0) == "open"


@pytest.mark.parametrize(
    "error",
    [
        errors.LLMCancelledError("x"),
        errors.BadRequestError("x"),
        errors.ContextOverflowError("x"),
        errors.ContentFilterError("x"),
        errors.SchemaError("x"),
        errors.BudgetExceededError("x"),
    ],
)
def test_what_is_not_the_models_fault_leaves_it_closed(error):
    model = guard()
    for _ in range(20):
        call(model, 0, error)
    assert model.state(0) == "closed"
    assert model.delay(0, 10) == 0


def test_a_cancelled_probe_frees_its_place():
    model = guard()
    for _ in range(5):
        call(model, 0, TIMEOUT)
    ticket = model.enter(5, 10)
    assert model.delay(5, 10) > 0
    assert not model.probing_helps  # somebody probes already
    model.leave(6, ticket, errors.LLMCancelledError("x"), None)
    assert model.delay(6, 10) == 0
    call(model, 6)
    assert model.state(6) == "closed"


@pytest.mark.parametrize("error", [errors.AuthError("x"), errors.UnknownModelError("x")])
def test_a_wrong_key_or_name_disables_the_model_for_good(error):
    model = guard()
    call(model, 0, error)
    call(model, 1)  # an earlier call that still ends well changes nothing
    assert model.delay(1e9, 10) == math.inf
    assert model.state(1e9) == "disabled"
    assert not model.probing_helps


def test_a_rate_limit_cools_the_model_for_as_long_as_the_provider_says():
    model = guard()
    call(model, 100, limited(7))
    assert model.state(100) == "cooling"
    assert model.delay(100, 10) == 7
    assert not model.probing_helps
    assert model.delay(107, 10) == 0
    assert model.state(107) == "closed"


def test_a_rate_limit_without_a_time_cools_longer_each_time_until_an_answer():
    model, waits = guard(), []
    for _ in range(6):
        call(model, 0, limited())
        waits.append(model.delay(0, 10))
    assert waits == [0.5, 1, 2, 4, 8, 8]
    call(model, 50)
    call(model, 100, limited())
    assert model.delay(100, 10) == 0.5


@pytest.mark.parametrize(("retry_after", "seconds"), [(-5, 0), (1e12, LONGEST_COOL_DOWN), (math.nan, 0.5)])
def test_nonsense_from_the_provider_is_bounded(retry_after, seconds):
    model = guard()
    call(model, 0, limited(retry_after))
    assert model.delay(0, 10) == seconds


def test_a_spent_quota_cools_for_long():
    model = guard()
    call(model, 0, errors.QuotaError("no credit"))
    assert model.delay(0, 10) == QUOTA_COOL_DOWN
    assert model.state(0) == "cooling"


REFUSALS = st.one_of(
    st.builds(limited, st.none() | st.floats(-10, 1e4)), st.just(errors.QuotaError("x")), st.none(), st.just(TIMEOUT)
)


@given(st.lists(st.tuples(st.floats(0, 100), REFUSALS), max_size=30))
def test_no_news_shortens_a_cool_down(steps):
    model, now, free = guard(), 0.0, 0.0
    for pause, error in steps:
        now += pause
        call(model, now, error)
        until = now + model.delay(now, 10)
        if model.state(now) == "cooling":
            assert until >= free - 1e-6
            free = until


def test_requests_and_tokens_are_set_aside_and_corrected():
    model = guard(rpm=60, tpm=6000)  # bursts of 10 requests and 1,000 tokens
    ticket = model.enter(0, 1000)
    assert model.delay(0, 500) == pytest.approx(5)
    model.leave(0, ticket, None, 100)  # it used less than it was thought to
    assert model.delay(0, 500) == 0
    model.leave(0, model.enter(0, 100), None, 1300)  # and the next one more
    assert model.delay(0, 500) == pytest.approx(9)
    for _ in range(8):
        model.leave(100, model.enter(100, 0), None, 0)
    assert model.delay(100, 0) == 0
    for _ in range(3):
        model.leave(100, model.enter(100, 0), None, 0)
    assert model.delay(100, 0) == pytest.approx(2)


def test_an_unknown_usage_keeps_the_estimate():
    model = guard(tpm=6000)
    model.leave(0, model.enter(0, 1000), errors.LLMCancelledError("x"), None)
    assert model.delay(0, 1000) == pytest.approx(10)


def test_models_of_a_provider_share_its_limits_and_nothing_else():
    provider = ProviderGuard(ProviderLimits(rpm=6, concurrency=8))
    one, second = ModelGuard(provider), ModelGuard(provider)
    call(one, 0, errors.AuthError("x"))
    assert second.state(0) == "closed"
    assert second.delay(0, 10) == pytest.approx(10)


def test_a_burst_of_refusals_halves_the_concurrency_once():
    model = guard(concurrency=16)
    tickets = [model.enter(1, 10) for _ in range(10)]
    for ticket in tickets:
        model.leave(2, ticket, limited(0), None)
    assert model.provider.concurrency == 8
    call(model, 3, limited(0))
    assert model.provider.concurrency == 4


def test_a_host_without_a_place_lowers_the_concurrency_to_what_it_holds_and_never_trips():
    model = guard(concurrency=16)
    for ticket in [model.enter(1, 10) for _ in range(10)]:
        model.leave(2, ticket, errors.HostBusyError("full", connections=6), None)
    assert (model.provider.concurrency, model.state(2)) == (6, "closed")
    call(model, 3, errors.HostBusyError("full", connections=9))
    assert model.provider.concurrency == 5
    for now in range(4, 12):
        call(model, now, errors.HostBusyError("full", connections=0))
    assert model.provider.concurrency == 1


def test_a_clean_window_adds_one():
    model = guard(concurrency=8)
    call(model, 0, limited(0))
    assert model.provider.concurrency == 4
    for _ in range(4):
        call(model, 1)
    assert model.provider.concurrency == 5
    for _ in range(5 + 6 + 7):
        call(model, 1)
    assert model.provider.concurrency == 8
    for _ in range(100):
        call(model, 1)
    assert model.provider.concurrency == 8


@given(st.integers(1, 64), st.lists(st.sampled_from([None, limited(0), TIMEOUT]), max_size=200))
def test_the_concurrency_stays_between_one_and_the_limit(limit, results):
    model = guard(concurrency=limit)
    for now, error in enumerate(results):
        call(model, now, error)
        assert 1 <= model.provider.concurrency <= limit


def test_the_slots_follow_the_provider():
    model = guard(concurrency=4)
    slots = Slots(model.provider.concurrency)
    call(model, 0, limited(0))
    slots.limit = model.provider.concurrency
    assert slots.limit == 2
