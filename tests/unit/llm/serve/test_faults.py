import pytest

from agentlab import errors
from agentlab.llm.serve.faults import RefusedError, fault_of, internal
from agentlab.runs.redact import Redactor

KEY = "sk-canary-0123456789abcdefghij"


def fault(error):
    return fault_of(error, Redactor([KEY]))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.UnknownNameError("model", "x", ["y"]), 404),
        (errors.UsageError("x"), 400),
        (errors.BadRequestError("x"), 400),
        (errors.ContextOverflowError("x"), 400),
        (errors.ContentFilterError("x"), 400),
        (errors.BudgetExceededError("x"), 402),
        (errors.QuotaError("x"), 402),
        (errors.RateLimitedError("x"), 429),
        (errors.AllModelsFailedError("x", retry_after=3), 429),
        (errors.AllModelsFailedError("x", failures=["a: RateLimitedError: x", "b: RateLimitedError: y"]), 429),
        (errors.AllModelsFailedError("x", failures=["a: RateLimitedError: x", "b: ServerFaultError: y"]), 502),
        (errors.LLMTimeoutError("x"), 504),
        (errors.AllModelsFailedError("x", failures=["a: LLMTimeoutError: x"]), 504),
        (errors.AllModelsFailedError("x"), 502),
        (errors.AllModelsFailedError("x", failures=["a: ContextOverflowError: x", "b: ContextOverflowError: y"]), 400),
        (errors.AllModelsFailedError("x", failures=["a: BadRequestError: x"]), 400),
        (errors.LLMTruncatedError("x"), 502),
        (errors.AuthError("x"), 502),  # the provider's 401 is not the client's
        (errors.UnknownModelError("x"), 502),
        (errors.SchemaError("x"), 502),
        (errors.LLMCancelledError("x"), 503),
        (errors.MissingKeyError("x"), 500),
    ],
)
def test_statuses(error, status):
    assert fault(error).status == status


def test_where_no_model_answered_the_hint_says_what_to_do():
    for error in (errors.WorkerDiedError("It died.", hint="Ask again."), errors.AllModelsFailedError("x", hint="Y.")):
        assert fault(error).document["error"]["message"] == f"{error.message} {error.hint}"


def test_how_long_to_wait():
    assert fault(errors.RateLimitedError("x", retry_after=1.2)).headers == {"Retry-After": "2"}
    assert fault(errors.RateLimitedError("x")).headers == {"Retry-After": "1"}
    assert fault(errors.AllModelsFailedError("x", retry_after=0)).headers == {"Retry-After": "1"}


def test_a_client_does_not_repeat_what_the_router_has_repeated():
    assert fault(errors.AllModelsFailedError("x")).headers == {"X-Should-Retry": "false"}


def test_the_document():
    assert fault(RefusedError("n: only 1.", param="n")).document == {
        "error": {"message": "n: only 1.", "type": "invalid_request_error", "param": "n", "code": "invalid_value"}
    }


def test_a_prompt_that_does_not_fit_is_told_in_words_that_clients_know():
    error = fault(errors.AllModelsFailedError("Too long.", failures=["a: ContextOverflowError: x"])).document["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["message"] == "This model's maximum context length is exceeded. Too long."


def test_a_secret_never_leaves():
    for error in (
        errors.AuthError(f"Wrong key {KEY}", hint=KEY),
        RefusedError(KEY),
        errors.UnknownNameError("model", KEY, []),
    ):
        assert KEY not in str(fault(error).document)


def test_a_bug_says_nothing_about_itself():
    assert internal().status == 500
    assert "log" in internal().document["error"]["message"]
