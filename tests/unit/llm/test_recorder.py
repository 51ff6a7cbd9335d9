"""What identifies a call, and how its outcome becomes an event and comes back."""

import pytest

from agentlab import errors
from agentlab.llm.attempts import Outcome
from agentlab.llm.recorder import error_from, key_of, outcome_data
from agentlab.llm.types import Attempt, Usage

QUESTION = {
    "task": "t",
    "messages": [{"role": "user", "content": "Grüße \ud83d"}],
    "schema": None,
    "sampling": {"t": 0},
}


def test_a_key_depends_on_content_and_not_on_order():
    assert key_of(QUESTION) == key_of(dict(reversed(QUESTION.items())))
    assert key_of(QUESTION) != key_of({**QUESTION, "task": "u"})
    assert len(key_of(QUESTION)) == 64


@pytest.mark.parametrize(
    "error",
    [
        errors.AllModelsFailedError("all", failures=["a: x", "b: y"], hint="do"),
        errors.BadRequestError("bad", hint=None),
        errors.ContentFilterError("no"),
    ],
)
def test_an_error_comes_back_as_itself(error):
    outcome = Outcome((Attempt("m", error.kind, "why", Usage(1, 2, None)),), error=error)
    back = error_from(outcome_data("t", outcome)["error"])
    assert type(back) is type(error)
    assert (back.message, back.hint) == (error.message, error.hint)
    assert getattr(back, "failures", ()) == getattr(error, "failures", ())


def test_an_event_cannot_name_another_class():
    with pytest.raises(errors.RunUnreadableError):
        error_from({"kind": "Sequence", "message": "x", "hint": None})
