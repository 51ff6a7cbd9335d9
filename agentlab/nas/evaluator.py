"""Is a trial better than what we have? Rules decide; a language model is asked only where they cannot tell.

Neither ever sees a test figure.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from agentlab.config.base import StrictModel
from agentlab.errors import GateError, RemoteError
from agentlab.llm.types import Message
from agentlab.nas.state import Decision, StudyState, TrialState
from agentlab.search.llm_proposer import one_line

if TYPE_CHECKING:
    from agentlab.llm.router import Router

TASK = "nas.evaluate"


class Judgement(StrictModel):
    """The model's answer."""

    reason: str = Field(max_length=200, description="One short sentence.")
    decision: Literal["accept", "reject"]


def by_rule(trial: TrialState, state: StudyState, noise: float) -> Decision | None:
    """Accept or reject what is clear; None where error and size pull in different directions within the noise.

    Args:
        trial: the trial that has ended.
        state: the trials before it. Comparing with the smallest error of them all, and not only with the last accepted
            trial, keeps a chain of lenient answers from drifting further than one noise width.
        noise: relative difference of validation errors that is taken as equal.
    """
    best, lowest = state.best, state.lowest
    if trial.value is None:
        return Decision(False, "the trial failed")
    if best is None or best.value is None or lowest is None:
        return Decision(True, "the first trial that finished")
    change = (trial.value - lowest) / lowest if lowest > 0 else 0.0
    if change < -noise:
        return Decision(True, f"validation error {-change:.1%} lower than the best so far")
    if change > noise:
        return Decision(False, f"validation error {change:.1%} higher than the best so far")
    for other in state.trials:
        if other.value is not None and other.value <= trial.value and weights(other) <= weights(trial):
            return Decision(False, f"within the noise, {other.id} is no worse and no larger")
    if trial.value <= best.value and weights(trial) <= weights(best):
        return Decision(True, "within the noise, no worse and no larger")
    return None


def weights(trial: TrialState) -> int:
    """Number of weights of a trial that finished."""
    return int(trial.result.metrics["parameters"]) if trial.result else 0


def decide(trial: TrialState, state: StudyState, noise: float, router: "Router | None") -> Decision:
    """Judge a trial that has ended. `state` holds the trials before it."""
    ruled = by_rule(trial, state, noise)
    if ruled is not None:
        return ruled
    best = state.best
    if best is None or best.value is None or trial.value is None:
        raise AssertionError("by_rule decides while there are not two finished trials")
    fallback = Decision(trial.value < best.value, "within the noise, by the lower error")
    if router is None or not router.available(TASK):
        return fallback
    try:
        answer = router.complete_sync(
            question(trial, best), task=TASK, schema=Judgement, call_id=f"{trial.id}/evaluate"
        )
    except (RemoteError, GateError) as error:
        return Decision(fallback.accepted, f"{fallback.reason}; no judgement: {error.message[:120]}")
    return Decision(answer.value.decision == "accept", one_line(answer.value.reason), by=answer.model)


def question(trial: TrialState, best: TrialState) -> list[Message]:
    """What the model is asked. Pure; relative figures, because small models misread long decimals."""

    def line(name: str, state: TrialState) -> str:
        error = 100 * (state.value or 0.0) / (best.value or 1.0)
        return f"{name}: validation error {error:.1f}, {weights(state)} weights"

    return [
        Message(
            "system",
            "You decide whether a new forecasting model replaces the current one. Lower error is better; "
            "at equal error fewer weights are better. Answer in JSON.",
        ),
        Message(
            "user",
            f"{line('current', best)}\n{line('new', trial)}\n"
            "The difference is within measurement noise. Accept the new model?",
        ),
    ]
