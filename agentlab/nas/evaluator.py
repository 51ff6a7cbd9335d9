"""Is a trial better than what we have? Rules decide beyond the measured noise; within it, training again does.

A language model that can do more than pick letters says of a near tie whether the gain will last. All that its word
can do is to add one training to the one that follows anyway: it can neither accept nor reject. What the trainings then
show is held against what it said. Neither it nor a rule sees a test figure.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from agentlab.config.base import StrictModel
from agentlab.llm.types import Message
from agentlab.nas.noise import Noise
from agentlab.nas.state import Decision, Opinion, TrialState
from agentlab.search.llm_proposer import LLM_FAILURES, one_line

if TYPE_CHECKING:
    from agentlab.llm.router import Router

TASK = "nas.evaluate"


class Judgement(StrictModel):
    """The model's answer: `repeat` expects the gain to last, `reject` that it was luck."""

    reason: str = Field(max_length=200, description="One short sentence.")
    decision: Literal["repeat", "reject"]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Train the trial again, with so many other seeds, before deciding. `opinion` is what a model said, if asked."""

    reason: str
    count: int = 1
    opinion: Opinion | None = None


def by_rule(
    trial: TrialState, best: TrialState | None, noise: Noise, noise_of_best: Noise | None = None
) -> Decision | None:
    """Accept what is lower beyond the noise, reject what is not lower; None for what is lower within it.

    Args:
        trial: the trial that has ended, repetitions included.
        best: the trial that was accepted last. As only gains beyond the noise are accepted, a chain of lucky seeds
            cannot drift.
        noise: what the seed alone does to the error of the trial.
        noise_of_best: the same of the best; None if it is the same.
    """
    if trial.value is None:
        return Decision(False, "the trial failed")
    if best is None or best.value is None:
        return Decision(True, "the first trial that finished")
    change = math.log(max(trial.value, 1e-12) / max(best.value, 1e-12))
    limit = noise.limit(len(trial.values), len(best.values), noise_of_best)
    said = f"validation error {abs(math.expm1(change)):.1%} {'lower' if change < 0 else 'higher'} than {best.id}"
    if change < -limit:
        return Decision(True, said)
    if change >= 0:
        return Decision(False, said if change else f"validation error equal to that of {best.id}")
    if trial.wanted:
        return Decision(False, f"{said} as the mean of {len(trial.values)} trainings, within the noise of {limit:.1%}")
    return None


def decide(
    trial: TrialState,
    best: TrialState | None,
    noise: Noise,
    router: "Router | None",
    *,
    noise_of_best: Noise | None = None,
    scope: str = "",
) -> Decision | Repeat:
    """Judge a trial that has ended; a near tie is trained again, whatever a model says of it.

    `scope` tells the calls of parallel studies apart.
    """
    ruled = by_rule(trial, best, noise, noise_of_best)
    if ruled is not None:
        return ruled
    if best is None or best.value is None or trial.value is None:
        raise AssertionError("by_rule decides while there are not two finished trials")
    reason = "lower, but within the noise"
    if router is None or router.tier(TASK) in (None, "pick"):  # a model that can only pick letters says one thing only
        return Repeat(reason)
    try:
        answer = router.complete_sync(
            question(trial, best), task=TASK, schema=Judgement, call_id=f"{scope}{trial.id}/evaluate"
        )
    except LLM_FAILURES as error:
        return Repeat(f"{reason}; no judgement: {error.message[:120]}")
    lasts, said = answer.value.decision == "repeat", one_line(answer.value.reason)
    expects = f"{answer.model} expects it to {'last' if lasts else 'vanish'}: {said}"
    return Repeat(f"{reason}; {expects}", 1 + lasts, Opinion(answer.model, lasts, best.value))


def weights(trial: TrialState) -> int:
    """Number of weights of a trial that finished."""
    return int(trial.result.metrics["parameters"]) if trial.result else 0


def question(trial: TrialState, best: TrialState) -> list[Message]:
    """What the model is asked. Pure; relative figures, because small models misread long decimals."""

    def line(name: str, state: TrialState) -> str:
        error = 100 * (state.value or 0.0) / (best.value or 1.0)
        return f"{name}: validation error {error:.1f}, {weights(state)} weights"

    return [
        Message(
            "system",
            "You judge whether a new forecasting model is really better. Lower error is better. Answer in JSON.",
        ),
        Message(
            "user",
            f"{line('current', best)}\n{line('new', trial)}\n"
            "The difference is within measurement noise, so the new model is trained again. Say repeat if you expect "
            "its lower error to last, which adds one more training; say reject if you expect it to vanish.",
        ),
    ]
