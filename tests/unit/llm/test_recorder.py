"""What identifies a call, and how its outcome becomes an event and comes back."""

import pytest

from agentlab import errors
from agentlab.llm.attempts import RouterOutcome
from agentlab.llm.budget import RouterBudget
from agentlab.llm.question import key_of
from agentlab.llm.recorder import RunRecorder, attempt_from, error_from, outcome_data
from agentlab.llm.types import Attempt, Usage
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec

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
    outcome = RouterOutcome((Attempt("m", error.kind, "why", Usage(1, 2, None)),), error=error)
    back = error_from(outcome_data("t", outcome)["error"])
    assert type(back) is type(error)
    assert (back.message, back.hint) == (error.message, error.hint)
    assert getattr(back, "failures", ()) == getattr(error, "failures", ())


def test_an_event_cannot_name_another_class():
    with pytest.raises(errors.RunUnreadableError):
        error_from({"kind": "Sequence", "message": "x", "hint": None})


def test_a_run_that_is_gone_on_with_remembers_what_silent_providers_are_assumed_to_cost(tmp_path):
    silent = RouterOutcome((Attempt("m", None, usage=Usage(), assumed_usd=0.8),), "m", "hi")
    with OpenRun.create(tmp_path / "runs", RunSpec("nas", "", "", "h", 0, name="r"), RunEnvironment()) as run:
        RunRecorder(run).record("k", "", outcome_data("t", silent))
    with OpenRun.resume(run.path, RunEnvironment()) as resumed:
        usage = RunRecorder(resumed).total_usage()
    assert usage.cost_usd == 0.8
    with pytest.raises(errors.BudgetExceededError):
        RouterBudget(1.0, usage).reserve(0.3)


def test_an_attempt_of_an_older_version_has_no_assumed_cost():
    old = {"model": "m", "error": None, "message": "", "usage": {"input_tokens": 1, "output_tokens": 2, "cost_usd": 3}}
    assert attempt_from(old) == Attempt("m", None, "", Usage(1, 2, 3))
