"""Rules decide beyond the noise; the model decides only within it, and its failure decides nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import LLMTimeoutError
from agentlab.llm.types import Attempt, Completion, Usage
from agentlab.nas.evaluator import Judgement, by_rule, decide, question
from agentlab.nas.state import Decision, StudyState, TrialState
from agentlab.search.types import Proposal, TrialResult

NOISE = 0.01
errors = st.floats(0.01, 10)


class Router:
    """Answers as told, and remembers what it was asked."""

    def __init__(self, answer: str | Exception) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def available(self, task: str) -> bool:
        return task == "nas.evaluate"

    def complete_sync(self, messages: Any, **_: Any) -> Completion[Judgement]:
        self.asked.append(messages)
        if isinstance(self.answer, Exception):
            raise self.answer
        value = Judgement(reason="because", decision=self.answer)  # type: ignore[arg-type]
        return Completion(value, "", "tiny", Usage(), (Attempt("tiny", None),))


def trial(number: int, value: float | None, accepted: bool | None = None) -> TrialState:
    result = TrialResult("finished" if value is not None else "failed", value, {"parameters": 100 * (number + 1)})
    decision = None if accepted is None else Decision(accepted, "")
    return TrialState(number, Proposal({}, "gp"), "control", 0.5, result, decision)


BEFORE = StudyState(trials=(trial(0, 0.5, True),))


@given(errors, errors)
def test_rules_are_silent_exactly_within_the_noise(value: float, lowest: float) -> None:
    ruled = by_rule(value, lowest, NOISE)
    assert (ruled is None) == (abs(value - lowest) / lowest <= NOISE)
    if ruled is not None:
        assert ruled.accepted == (value < lowest)


def test_the_first_success_is_accepted_and_a_failure_never() -> None:
    assert by_rule(0.5, None, NOISE) == Decision(True, "the first trial that finished")
    assert by_rule(None, None, NOISE) == Decision(False, "the trial failed")


@pytest.mark.parametrize(("answer", "accepted"), [("accept", True), ("reject", False)])
def test_the_model_is_asked_within_the_noise_and_its_reason_kept(answer: str, accepted: bool) -> None:
    router = Router(answer)
    decision = decide(trial(1, 0.499), BEFORE, NOISE, router)  # type: ignore[arg-type]
    assert decision == Decision(accepted, "because", by="tiny")
    assert len(router.asked) == 1


def test_the_model_is_not_asked_beyond_the_noise() -> None:
    router = Router("reject")
    assert decide(trial(1, 0.4), BEFORE, NOISE, router).accepted  # type: ignore[arg-type]
    assert router.asked == []


@pytest.mark.parametrize(("value", "accepted"), [(0.499, True), (0.501, False)])
def test_a_failing_model_leaves_the_lower_error_the_winner(value: float, accepted: bool) -> None:
    decision = decide(trial(1, value), BEFORE, NOISE, Router(LLMTimeoutError("slow")))  # type: ignore[arg-type]
    assert decision.accepted is accepted
    assert "LLMTimeoutError" in decision.reason
    assert decide(trial(1, value), BEFORE, NOISE, None).accepted is accepted


@given(st.lists(st.floats(0.9, 1.1), min_size=1, max_size=30))
def test_a_model_that_accepts_everything_loses_no_more_than_the_noise(values: list[float]) -> None:
    state = StudyState()
    for number, value in enumerate(values):
        decision = decide(trial(number, value), state, NOISE, Router("accept"))  # type: ignore[arg-type]
        judged = trial(number, value, decision.accepted)
        state = StudyState(trials=(*state.trials, judged))
    assert state.best is not None
    assert state.best.value is not None
    assert state.best.value <= min(values) * (1 + NOISE) ** 2


def test_the_question_shows_validation_and_size_only() -> None:
    text = " ".join(message.content for message in question(trial(1, 0.505), trial(0, 0.5)))
    assert "validation error 101.0" in text
    assert "200 weights" in text
    assert "test" not in text.lower()
