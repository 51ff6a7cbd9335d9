"""The light control of a study: was a trial more of an improvement when the agent proposed it?"""

from collections.abc import Sequence

import numpy as np

from agentlab.nas.state import TrialState
from agentlab.search.types import meaning
from agentlab.stats.control import Comparison, Control
from agentlab.stats.studies import light_study

_STREAM = 2  # apart from the streams of single trials in nas/steps.py


def improvements(trials: Sequence[TrialState]) -> list[float]:
    """For every trial after the shared first one: by how much it lowered the best validation error, as a share of it.

    A trial that failed or was no better improved by nothing. Pure.
    """
    lowest: float | None = None
    found: list[float] = []
    for trial in trials:
        value = trial.value
        gain = max(0.0, (lowest - value) / lowest) if value is not None and lowest else 0.0
        if trial.arm != "shared":
            found.append(gain)
        if value is not None:
            lowest = value if lowest is None else min(lowest, value)
    return found


def light_control(trials: Sequence[TrialState], seed: int, base: str) -> tuple[Control | None, str]:
    """The control record of a study and what it means in a sentence; no record without an agent.

    A trial stays in the arm that the coin gave it, even where the model failed and the optimiser stood in.
    """
    drawn = [trial for trial in trials if trial.arm != "shared"]
    if not any(trial.probability for trial in drawn):
        return None, "No language model took part, so there is no agent to compare."
    what = Comparison(
        agent="language model as proposer",
        control=f"{meaning(base)} ({base}) alone",
        metric="improvement of the best validation MSE per trial",
        unit="share of the best before",
        direction="higher",
        budget=f"{len(drawn)} trials, assigned by a fair coin",
    )
    by_agent = [trial.arm == "agent" for trial in drawn]
    rng = np.random.default_rng([seed, _STREAM, len(trials)])
    control = light_study(what, improvements(trials), by_agent, rng, probability=drawn[0].probability)
    return control, light_sentence(control, sum(by_agent))


_VERDICTS = {
    "helped": "The agent helped",
    "no_measurable_help": "No measurable help from the agent",
    "hurt": "The agent hurt",
    "not_measured": "Not measured",
}


def light_sentence(control: Control, agent_trials: int) -> str:
    """What a light control says, for a reader."""
    if control.estimate is None or control.low is None or control.high is None:
        return f"Whether the agent helped was not measured: {control.note}. More trials, or --seed, change the draw."
    points, low, high = (100 * value for value in (control.estimate, control.low, control.high))
    return (
        f"{_VERDICTS[control.verdict]}: its {agent_trials} trials lowered the best error by {abs(points):.2f} "
        f"percentage points {'more' if points >= 0 else 'less'} each than the {control.n - agent_trials} of "
        f"{control.control}; {control.level:.0%} interval of the difference [{low:+.2f}, {high:+.2f}], "
        f"{control.method}.{_note(control)}"
    )


def full_sentence(control: Control) -> str:
    """What a full control says, for a reader."""
    if control.estimate is None or control.low is None or control.high is None:
        return f"Whether the agent helped was not measured: {control.note}."
    side, level = "lower" if control.estimate >= 0 else "higher", 100 * control.level
    return (
        f"{_VERDICTS[control.verdict]}: over {control.n} pairs of studies the {control.metric} with it was "
        f"{abs(control.estimate):.4f} {side} than with {control.control}; {level:.4g} % interval of the gain "
        f"[{control.low:+.4f}, {control.high:+.4f}], {control.method}.{_note(control)}"
    )


def _note(control: Control) -> str:
    return f" {control.note}" if control.note else ""
