"""Is a trial better than what we have? Rules decide; a language model is asked only where they cannot tell.

Neither ever sees a test figure.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from agentlab.config.base import StrictModel
from agentlab.errors import GateError, RemoteError
from agentlab.llm.types import Message
from agentlab.nas.state import Decision, StudyState, TrialState

if TYPE_CHECKING:
    from agentlab.llm.router import Router

TASK = "nas.evaluate"


class Judgement(StrictModel):
    """The model's answer."""

    reason: str = Field(max_length=200, description="One short sentence.")
    decision: Literal["accept", "reject"]


def by_rule(value: float | None, lowest: float | None, noise: float) -> Decision | None:
    """Accept or reject beyond the noise; None within it.

    Args:
        value: validation MSE of the trial, None if it failed.
        lowest: the smallest validation MSE so far, None for the first success. Comparing with the lowest, and not
            with the last accepted trial, keeps a chain of lenient answers from drifting further than one noise width.
        noise: relative difference that is taken as equal.
    """
    if value is None:
        return Decision(False, "the trial failed")
    if lowest is None:
        return Decision(True, "the first trial that finished")
    change = (value - lowest) / lowest if lowest > 0 else 0.0
    if change < -noise:
        return Decision(True, f"validation error {-change:.1%} lower than the best so far")
    if change > noise:
        return Decision(False, f"validation error {change:.1%} higher than the best so far")
    return None


def decide(trial: TrialState, state: StudyState, noise: float, router: "Router | None") -> Decision:
    """Judge a trial that has ended. `state` holds the trials before it."""
    ruled = by_rule(trial.value, state.lowest, noise)
    if ruled is not None:
        return ruled
    best = state.best
    if best is None or best.value is None or trial.value is None:  # by_rule has decided such cases
        raise AssertionError("the unclear middle needs two finished trials")
    lower = trial.value < best.value
    fallback = f"within the noise of {noise:.1%}; the lower error wins"
    if router is None or not router.available(TASK):
        return Decision(lower, fallback)
    try:
        answer = router.complete_sync(
            question(trial, best), task=TASK, schema=Judgement, call_id=f"{trial.id}/evaluate"
        )
    except (RemoteError, GateError) as error:
        return Decision(lower, f"{fallback} ({error.kind} of the model)")
    return Decision(answer.value.decision == "accept", answer.value.reason, by=answer.model)


def question(trial: TrialState, best: TrialState) -> list[Message]:
    """What the model is asked. Pure; relative figures, because small models misread long decimals."""

    def line(name: str, state: TrialState, measure: Callable[[TrialState], float]) -> str:
        error = 100 * measure(state) / measure(best)
        weights = state.result.metrics.get("parameters") if state.result else None
        return f"{name}: validation error {error:.1f}, {weights} weights"

    def value(state: TrialState) -> float:
        return state.value or 1.0

    return [
        Message(
            "system",
            "You decide whether a new forecasting model replaces the current one. Lower error is better; "
            "at equal error fewer weights are better. Answer in JSON.",
        ),
        Message(
            "user",
            f"{line('current', best, value)}\n{line('new', trial, value)}\n"
            "The difference is within measurement noise. Accept the new model?",
        ),
    ]
