"""The table of errors: who is asked again, and after how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab import errors
from agentlab.llm.policy import backoff, rule_for, verdict
from agentlab.llm.types import Attempt

AGAIN = {"LLMConnectionError", "ServerFaultError", "MalformedReplyError", "WorkerDiedError"}
STOPS = {"ContentFilterError", "LLMCancelledError"}
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
    assert rule.refuses == (name in {"BadRequestError", "ContextOverflowError"})
    assert rule.remedy
    assert "llm-bench" not in rule.remedy  # it may be what was just run


def test_a_host_without_a_place_is_asked_again_and_never_blamed():
    rule = rule_for(errors.HostBusyError("full"))
    assert (rule.again, rule.move_on, rule.trips) == (True, True, False)


def test_a_missing_file_leads_to_the_next_model_and_a_spent_budget_to_none():
    assert rule_for(errors.MissingFileError("x")).move_on
    assert not rule_for(errors.BudgetExceededError("x")).move_on


@given(st.integers(1, 50), st.floats(0, 1))
def test_backoff_doubles_to_a_ceiling_and_is_spread(tries, chance):
    full_delay = min(8.0, 0.5 * 2 ** (tries - 1))
    assert full_delay / 2 <= backoff(tries, chance) <= full_delay


def said(*attempts):
    return verdict("t", [Attempt(*attempt) for attempt in attempts])


def test_if_all_refuse_the_first_refusal_is_told_with_its_model_and_a_remedy():
    error = said(("a", "BadRequestError", "HTTP 400: no."), ("b", "ContextOverflowError", "HTTP 400: long."))
    assert type(error) is errors.BadRequestError
    assert error.message == "a: HTTP 400: no. No other model accepts it either."
    assert "`id`" in error.hint
    assert said(("a", "ContextOverflowError", "HTTP 413."), ("a", "BadRequestError", "x")).message == "a: HTTP 413."


@pytest.mark.parametrize("second_error", ["ServerFaultError", "UnknownModelError", "OfSomePlugInError"])
def test_if_only_some_refuse_it_is_a_failure_of_all_and_the_first_is_told(second_error):
    error = said(("a", "BadRequestError", "HTTP 400: no."), ("b", second_error, "x"))
    assert type(error) is errors.AllModelsFailedError
    assert error.message == "No language model answered t; the first error: a: BadRequestError: HTTP 400: no."
    assert error.failures[1] == f"b: {second_error}: x"
    assert "`id`" in error.hint


def test_when_nobody_could_be_asked_that_is_told():
    error = verdict("t", [])
    assert type(error) is errors.AllModelsFailedError
    assert "llm show" in error.hint
