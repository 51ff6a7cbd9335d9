"""The table of errors: who is asked again, and after how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab import errors
from agentlab.errors import AgentlabError, RateLimitedError, ServerFaultError
from agentlab.llm.policy import LONGEST_WAIT, backoff, may_hold, rule_for, wait_before_retry

AGAIN = {"LLMConnectionError", "RateLimitedError", "ServerFaultError", "MalformedReplyError", "WorkerDiedError"}
STOPS = {"BadRequestError", "ContentFilterError", "LLMCancelledError"}
KINDS = [kind for kind in errors.RemoteError.__subclasses__() if kind.__module__ == "agentlab.errors"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_remote_error_has_a_row(kind):
    rule = rule_for(kind("x"))
    assert rule.again == (kind.__name__ in AGAIN)
    assert rule.move_on == (kind.__name__ not in STOPS)


def test_a_missing_file_leads_to_the_next_model_and_a_spent_budget_to_none():
    assert rule_for(errors.MissingFileError("x")).move_on
    assert not rule_for(errors.BudgetExceededError("x")).move_on


def wait(error: AgentlabError, tries=1, retries=1, last=False, chance=0.5):
    return wait_before_retry(error, tries=tries, retries=retries, last=last, chance=chance)


def test_retries_are_counted():
    assert wait(ServerFaultError("x")) == pytest.approx(0.375)
    assert wait(ServerFaultError("x"), tries=2) is None
    assert wait(ServerFaultError("x"), retries=0) is None


def test_a_rate_limit_is_waited_for_by_the_last_model_only():
    limited = RateLimitedError("x", retry_after=7)
    assert wait(limited) is None
    assert wait(limited, last=True) == 7
    assert wait(RateLimitedError("x", retry_after=LONGEST_WAIT + 1), last=True) is None
    assert wait(RateLimitedError("x"), last=True) == backoff(1, 0.5)


@given(st.integers(1, 50), st.floats(0, 1))
def test_backoff_doubles_to_a_ceiling_and_is_spread(tries, chance):
    whole = min(8.0, 0.5 * 2 ** (tries - 1))
    assert whole / 2 <= backoff(tries, chance) <= whole


def test_only_a_window_known_to_be_no_larger_is_passed_over():
    assert may_hold(8192, 2048)
    assert not may_hold(2048, 2048)
    assert may_hold(None, 2048)
    assert may_hold(2048, None)
