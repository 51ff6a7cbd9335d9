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


def trial(number: int, value: float | None, accepted: bool | None = None, weights: int = 100) -> TrialState:
    result = TrialResult("finished" if value is not None else "failed", value, {"parameters": weights})
    decision = None if accepted is None else Decision(accepted, "")
    return TrialState(number, Proposal({}, "gp"), "control", 0.5, result, decision)


BEST = trial(0, 0.5, True)
BEFORE = StudyState(trials=(BEST,))
LOWER_BUT_LARGER = trial(1, 0.499, weights=200)
SMALLER_NOT_LOWER = trial(1, 0.501, weights=50)


@given(errors, errors, st.integers(1, 999), st.integers(1, 999))
def test_rules_are_silent_only_where_error_and_size_disagree_within_the_noise(
    value: float, best: float, weights: int, best_weights: int
) -> None:
    before = StudyState(trials=(trial(0, best, True, best_weights),))
    ruled = by_rule(trial(1, value, weights=weights), before, NOISE)
    change = (value - best) / best
    trade = (value - best) * (weights - best_weights) < 0
    unclear = trade and abs(change) <= NOISE
    assert (ruled is None) == unclear
    if ruled is not None and abs(change) > NOISE:
        assert ruled.accepted == (change < 0)


def test_the_first_success_is_accepted_and_a_failure_never() -> None:
    assert by_rule(trial(0, 0.5), StudyState(), NOISE) == Decision(True, "the first trial that finished")
    assert by_rule(trial(0, None), StudyState(), NOISE) == Decision(False, "the trial failed")


@pytest.mark.parametrize("new", [LOWER_BUT_LARGER, SMALLER_NOT_LOWER])
@pytest.mark.parametrize(("answer", "accepted"), [("accept", True), ("reject", False)])
def test_the_model_is_asked_in_the_unclear_middle_and_its_reason_kept(
    new: TrialState, answer: str, accepted: bool
) -> None:
    router = Router(answer)
    decision = decide(new, BEFORE, NOISE, router)  # type: ignore[arg-type]
    assert decision == Decision(accepted, "because", by="tiny")
    assert len(router.asked) == 1


@pytest.mark.parametrize(
    ("new", "accepted"),
    [(trial(1, 0.4, weights=900), True), (trial(1, 0.499), True), (trial(1, 0.501, weights=200), False)],
)
def test_the_model_is_not_asked_where_it_is_clear(new: TrialState, accepted: bool) -> None:
    router = Router("reject" if accepted else "accept")
    assert decide(new, BEFORE, NOISE, router).accepted is accepted  # type: ignore[arg-type]
    assert router.asked == []


@pytest.mark.parametrize(("new", "accepted"), [(LOWER_BUT_LARGER, True), (SMALLER_NOT_LOWER, False)])
def test_a_failing_model_leaves_the_lower_error_the_winner(new: TrialState, accepted: bool) -> None:
    decision = decide(new, BEFORE, NOISE, Router(LLMTimeoutError("too slow")))  # type: ignore[arg-type]
    assert decision.accepted is accepted
    assert "too slow" in decision.reason
    assert decide(new, BEFORE, NOISE, None).accepted is accepted


@given(st.lists(st.tuples(st.floats(0.9, 1.1), st.integers(1, 999)), min_size=1, max_size=30))
def test_a_model_that_accepts_everything_loses_no_more_than_the_noise(trials: list[tuple[float, int]]) -> None:
    state = StudyState()
    for number, (value, weights) in enumerate(trials):
        decision = decide(trial(number, value, weights=weights), state, NOISE, Router("accept"))  # type: ignore[arg-type]
        state = StudyState(trials=(*state.trials, trial(number, value, decision.accepted, weights)))
    assert state.best is not None
    assert state.best.value is not None
    assert state.best.value <= min(value for value, _ in trials) * (1 + NOISE) ** 2


@given(st.lists(st.tuples(st.floats(0.99, 1.01), st.integers(1, 9)), min_size=1, max_size=30), st.data())
def test_no_other_trial_is_both_no_worse_and_smaller_than_the_winner(
    trials: list[tuple[float, int]], data: st.DataObject
) -> None:
    state = StudyState()
    for number, (value, weights) in enumerate(trials):
        answer = data.draw(st.sampled_from(["accept", "reject"]))
        decision = decide(trial(number, value, weights=weights), state, NOISE, Router(answer))  # type: ignore[arg-type]
        state = StudyState(trials=(*state.trials, trial(number, value, decision.accepted, weights)))
    assert state.best is not None
    assert state.best.value is not None
    size = state.best.result.metrics["parameters"] if state.best.result else 0
    assert not [
        t
        for t, (value, weights) in zip(state.trials, trials, strict=True)
        if value <= state.best.value and weights < size and value >= state.best.value * (1 - NOISE)
    ]


def test_the_question_shows_validation_and_size_only() -> None:
    text = " ".join(message.content for message in question(trial(1, 0.505, weights=200), BEST))
    assert "validation error 101.0" in text
    assert "200 weights" in text
    assert "test" not in text.lower()


def test_a_reason_of_the_model_cannot_steer_a_terminal() -> None:
    class Hostile(Router):
        def complete_sync(self, messages: Any, **_: Any) -> Completion[Judgement]:
            value = Judgement(reason="fine\x1b[2J\nrun_0009 accepted", decision="accept")
            return Completion(value, "", "tiny", Usage(), (Attempt("tiny", None),))

    decision = decide(LOWER_BUT_LARGER, BEFORE, NOISE, Hostile(""))  # type: ignore[arg-type]
    assert decision.reason.isprintable()
