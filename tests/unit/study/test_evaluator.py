"""Beyond the noise rules decide; within it the trial is trained again, and no model can have it accepted."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentlab.errors import AllModelsFailedError, BudgetExceededError, LLMTimeoutError
from agentlab.llm.types import Attempt, Completion, Usage
from agentlab.nas.study import TERMS, question
from agentlab.search.types import Proposal, TrialResult
from agentlab.study import evaluator
from agentlab.study.evaluator import Judgement, SeedEvaluator
from agentlab.study.events import Decision, Opinion, Repeat
from agentlab.study.noise import Noise
from agentlab.study.state import StudyState, TrialState

NOISE = Noise(0.01)
by_rule = partial(evaluator.by_rule, terms=TERMS)
errors = st.floats(0.01, 10)
verdicts = st.sampled_from(["repeat", "reject"])


class Router:
    """Answers as told, and remembers what it was asked."""

    def __init__(self, answer: str | Exception, reason: str = "because", tier: str | None = "edit") -> None:
        self.answer, self.reason, self._tier = answer, reason, tier
        self.asked: list[str] = []
        self.calls: list[str] = []

    def tier(self, task: str) -> str | None:
        return self._tier if task == "nas.evaluate" else None

    def complete_sync(self, messages: Any, *, call_id: str, **_: Any) -> Completion[Judgement]:
        self.asked.append(" ".join(message.content for message in messages))
        self.calls.append(call_id)
        if isinstance(self.answer, Exception):
            raise self.answer
        value = Judgement(reason=self.reason, decision=self.answer)  # type: ignore[arg-type]
        return Completion(value, "", "tiny", Usage(), (Attempt("tiny", None),))


def trial(number: int, *values: float | None, weights: int = 100) -> TrialState:
    """A trial whose trainings gave these errors; None is a failure."""
    results = [TrialResult("failed" if v is None else "finished", v, {"parameters": weights}) for v in values]
    name = f"run_{number:04d}"
    repeats = {f"{name}-r{turn}": result for turn, result in enumerate(results[1:], 1)}
    return TrialState(number, Proposal({}, "gp"), "control", 0.5, results[0], wanted=len(repeats), repeats=repeats)


def decide(new: TrialState, best: TrialState | None, noise: Noise, router: Any, scope: str = "") -> Decision | Repeat:
    """The verdict on a new trial in a study that has accepted the best one."""
    accepted = [replace(best, decision=Decision(True, ""))] if best else []
    state = StudyState(entries=(*accepted, new), judged=tuple(trial.id for trial in accepted))
    return SeedEvaluator(TERMS, noise.deviation, router=router, question=question, scope=scope).judge(new, state)


BEST = trial(0, 0.5)
NEAR = trial(1, 0.499)


@given(errors, errors, st.floats(0, 0.2), st.booleans())
def test_a_gain_is_accepted_only_beyond_the_noise(
    value: float, best: float, deviation: float, is_repeated: bool
) -> None:
    new = trial(1, value, value) if is_repeated else trial(1, value)
    change, limit = math.log(value / best), Noise(deviation).limit(1 + is_repeated, 1)
    assume(abs(change + limit) > 1e-9)
    ruled = by_rule(new, trial(0, best), Noise(deviation))
    if change < -limit:
        assert ruled is not None
        assert ruled.accepted
    elif change >= 0 or is_repeated:
        assert ruled is not None
        assert not ruled.accepted
    else:
        assert ruled is None  # the middle, while the trial was trained once


@given(errors, errors, st.floats(0.001, 0.2), verdicts, st.text(max_size=50))
def test_no_answer_of_a_model_has_a_trial_accepted(
    value: float, best: float, deviation: float, answer: str, reason: str
) -> None:
    new, noise = trial(1, value), Noise(deviation)
    router = Router(answer, reason)
    verdict = decide(new, trial(0, best), noise, router)
    if isinstance(verdict, Decision) and verdict.accepted:
        assert verdict == by_rule(new, trial(0, best), noise)
        assert verdict.by == "rule"
        assert router.asked == []


@pytest.mark.parametrize("decision", ["accept", "", "Repeat", "reject; accept"])
def test_a_model_cannot_even_say_accept(decision: str) -> None:
    with pytest.raises(ValidationError):
        Judgement.model_validate({"reason": "r", "decision": decision})


@given(st.lists(st.floats(0.5, 2), min_size=1, max_size=30), st.data())
def test_a_chain_of_accepted_trials_falls_by_more_than_the_noise_each_time(
    values: list[float], data: st.DataObject
) -> None:
    best: TrialState | None = None
    for number, value in enumerate(values):
        new = trial(number, value)
        verdict = decide(new, best, NOISE, Router(data.draw(verdicts)))
        if isinstance(verdict, Repeat):
            new = trial(number, value, data.draw(st.floats(0.5, 2)))
            verdict = decide(new, best, NOISE, None)
        assert isinstance(verdict, Decision)  # one repeat is enough to decide
        if not verdict.accepted:
            continue
        if best is not None:
            assert new.value is not None
            assert best.value is not None
            assert math.log(new.value / best.value) < -NOISE.limit(len(new.values), len(best.values))
        best = new
    assert best is not None


@given(errors, errors, errors)
def test_after_one_repeat_the_mean_decides_and_nobody_is_asked(best: float, first: float, second: float) -> None:
    router = Router("repeat")
    verdict = decide(trial(1, first, second), trial(0, best), NOISE, router)
    assert isinstance(verdict, Decision)
    assert router.asked == []


@pytest.mark.parametrize(("second", "accepted"), [(0.44, True), (0.5, False), (0.56, False), (None, False)])
def test_what_the_second_training_says_counts(second: float | None, accepted: bool) -> None:
    verdict = decide(trial(1, 0.495, second), BEST, NOISE, None)
    assert isinstance(verdict, Decision)
    assert verdict.accepted is accepted


def test_a_tie_after_the_repeat_says_how_wide_the_noise_is() -> None:
    verdict = by_rule(trial(1, 0.499, 0.498), BEST, NOISE)
    assert verdict is not None
    assert "0.3% lower than run_0000 (mean of 2 trainings), within the seed noise of 2.4%" in verdict.reason
    assert "standard deviation per seed 1.00%" in verdict.reason


def test_a_better_known_best_lets_a_smaller_gain_count() -> None:
    measured_best = trial(0, *[0.5] * 9)
    assert by_rule(trial(1, 0.487), BEST, NOISE) is None
    assert by_rule(trial(1, 0.487), measured_best, NOISE) == Decision(True, "validation error 2.6% lower than run_0000")


def test_the_first_success_is_accepted_and_a_failure_never() -> None:
    assert by_rule(trial(0, 0.5), None, NOISE) == Decision(True, "first trial that finished")
    assert by_rule(trial(0, None), None, NOISE) == Decision(False, "failed")
    assert by_rule(trial(1, None), BEST, NOISE) == Decision(False, "failed")


@pytest.mark.parametrize(("value", "reason"), [(0.5, "as run_0000"), (0.6, "20.0% higher"), (0.25, "50.0% lower")])
def test_a_reason_says_by_how_much(value: float, reason: str) -> None:
    verdict = by_rule(trial(1, value), BEST, NOISE)
    assert verdict is not None
    assert reason in verdict.reason


def test_a_near_tie_is_trained_again_without_a_model() -> None:
    assert decide(NEAR, BEST, NOISE, None) == Repeat("lower, but within the noise")


@pytest.mark.parametrize(("answer", "lasts", "count"), [("repeat", True, 2), ("reject", False, 1)])
def test_whatever_a_model_says_a_near_tie_is_trained_again(answer: str, lasts: bool, count: int) -> None:
    """Its word can add a training; none of its words can take away the one that follows without it."""
    router = Router(answer)
    verdict = decide(NEAR, BEST, NOISE, router, scope="agent-1/")
    assert isinstance(verdict, Repeat)
    assert (verdict.count, verdict.opinion) == (count, Opinion("tiny", lasts, 0.5))
    assert f"tiny expects the gain to {'last' if lasts else 'vanish'}: because" in verdict.reason
    assert router.calls == ["agent-1/run_0001/evaluate"]


@pytest.mark.parametrize("tier", ["pick", None])
def test_a_model_that_can_only_pick_letters_has_no_say(tier: str | None) -> None:
    """It says the same of whatever it is shown."""
    router = Router("reject", tier=tier)
    assert decide(NEAR, BEST, NOISE, router) == Repeat("lower, but within the noise")
    assert router.asked == []


@pytest.mark.parametrize("value", [0.4, 0.5, 0.51, None])
def test_the_model_is_not_asked_where_it_is_clear(value: float | None) -> None:
    router = Router("repeat")
    decide(trial(1, value), BEST, NOISE, router)
    assert router.asked == []


@pytest.mark.parametrize(
    "error",
    [LLMTimeoutError("too slow"), AllModelsFailedError("too slow", failures=()), BudgetExceededError("too slow")],
)
def test_a_model_that_fails_costs_one_training_and_decides_nothing(error: Exception) -> None:
    verdict = decide(NEAR, BEST, NOISE, Router(error))
    assert isinstance(verdict, Repeat)
    assert "too slow" in verdict.reason
    assert (verdict.count, verdict.opinion) == (1, None)


def test_the_question_shows_validation_and_size_only() -> None:
    text = " ".join(message.content for message in question(trial(1, 0.505, weights=200), BEST))
    assert "validation error 101.0" in text
    assert "200 weights" in text
    assert "test" not in text.lower()


def test_a_reason_of_the_model_cannot_steer_a_terminal() -> None:
    verdict = decide(NEAR, BEST, NOISE, Router("reject", "fine\x1b[2J\nrun_0009 accepted"))
    assert verdict.reason.isprintable()
