"""Behind a call that failed everywhere stands the failure of one model."""

import pytest

from agentlab import errors
from agentlab.bench.failures import cause_of, message_of

ALL = errors.AllModelsFailedError


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (errors.AuthError("Bad key."), errors.AuthError, "Bad key."),
        (
            ALL("x", failures=("a: ServerFaultError: 500", "b: LLMTimeoutError: at http://x: late")),
            errors.LLMTimeoutError,
            "at http://x: late",
        ),
        (ALL("x", failures=("vendor: model: RateLimitedError: wait",)), errors.RateLimitedError, "wait"),
        (ALL("none left"), ALL, "none left"),
        (ALL("none left", failures=("no kind here", "a: get_close_matches: b")), ALL, "none left"),
    ],
)
def test_the_last_failure_is_the_cause(error, kind, message):
    assert (cause_of(error), message_of(error)) == (kind, message)
