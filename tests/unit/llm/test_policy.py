"""The table of errors: who is asked again, and after how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab import errors
from agentlab.llm.policy import backoff, may_hold, rule_for

AGAIN = {"LLMConnectionError", "ServerFaultError", "MalformedReplyError", "WorkerDiedError"}
STOPS = {"BadRequestError", "ContentFilterError", "LLMCancelledError"}
TRIPS = AGAIN | {"LLMTimeoutError", "LLMTruncatedError"}
KINDS = [kind for kind in errors.RemoteError.__subclasses__() if kind.__module__ == "agentlab.errors"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_remote_error_has_a_row(kind):
    rule, name = rule_for(kind("x")), kind.__name__
    assert rule.again == (name in AGAIN)
    assert rule.move_on == (name not in STOPS)
    assert rule.trips == (name in TRIPS)
    assert rule.cools == (name in {"RateLimitedError", "QuotaError"})
    assert rule.disables == (name in {"AuthError", "UnknownModelError"})


def test_a_missing_file_leads_to_the_next_model_and_a_spent_budget_to_none():
    assert rule_for(errors.MissingFileError("x")).move_on
    assert not rule_for(errors.BudgetExceededError("x")).move_on


@given(st.integers(1, 50), st.floats(0, 1))
def test_backoff_doubles_to_a_ceiling_and_is_spread(tries, chance):
    whole = min(8.0, 0.5 * 2 ** (tries - 1))
    assert whole / 2 <= backoff(tries, chance) <= whole


def test_only_a_window_known_to_be_no_larger_is_passed_over():
    assert may_hold(8192, 2048)
    assert not may_hold(2048, 2048)
    assert may_hold(None, 2048)
    assert may_hold(2048, None)
