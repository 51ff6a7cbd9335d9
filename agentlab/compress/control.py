"""What the agent of a compression is worth: hypervolume a joule, by arm. It decides the agent's share, and is reported.

A trial's joules begin where the one before ended, so thinking is paid for by whoever thought.
"""

from collections.abc import Sequence

import numpy as np

from agentlab.compress.objective import REFERENCE, counts
from agentlab.stats.control import Comparison, Control, verdict_sentence
from agentlab.stats.fronts import front, hypervolume
from agentlab.stats.studies import light_study
from agentlab.study.control import describe_proposers
from agentlab.study.state import TrialState

_KJ = 1e3
_EVEN = 2.0  # trials of the mean that each arm is taken to have had before: few trials move the share little
_LEAST_SHARE, _MOST_SHARE = 0.1, 0.75  # of the agent: it can always recover, and there is always a control
_STEP = 0.05  # of the share: joules are never measured alike twice, and a resumed run should go on as the other
_STREAM = 5  # of the generator


def gains(trials: Sequence[TrialState]) -> list[tuple[float, float]]:
    """By how much each trial enlarged the hypervolume of all before it, and the kilojoules that it took. Pure."""
    found: list[tuple[float, float]] = []
    there, volume = list[tuple[float, ...]](), 0.0
    for trial in trials:
        if counts(trial):
            there = [*there, trial.objectives]
            there = [there[place] for place in front(there)]
        now = hypervolume(there, REFERENCE)
        found.append((now - volume, (trial.result.metrics.get("joules", 0.0) if trial.result else 0.0) / _KJ))
        volume = now
    return found


def share(trials: Sequence[TrialState]) -> float:
    """The agent's share of what comes next: its hypervolume a joule, beside that of both arms. Pure."""
    ended = [
        (*gain, trial.arm)
        for gain, trial in zip(gains(trials), trials, strict=True)
        if trial.arm != "shared" and trial.result is not None
    ]
    volume, energy = sum(row[0] for row in ended), sum(row[1] for row in ended)
    if not volume or not energy:
        return 0.5
    rates, even = [], _EVEN / len(ended)
    for arm in ("agent", "control"):
        own = [row for row in ended if row[2] == arm]
        # as shares of the whole: what both arms gained may be too small to divide by
        rates.append((sum(row[0] / volume for row in own) + even) / (sum(row[1] / energy for row in own) + even))
    step = round(rates[0] / sum(rates) / _STEP) * _STEP
    return min(max(step, _LEAST_SHARE), _MOST_SHARE)


def agent_control(trials: Sequence[TrialState], seed: int) -> tuple[Control | None, str]:
    """The record of a search and what it means in a sentence; no record without an agent."""
    drawn = [(trial, gain) for trial, gain in zip(trials, gains(trials), strict=True) if trial.probability]
    if not drawn:
        return None, ""
    what = Comparison(
        agent="language model as proposer",
        control=describe_proposers(trial.proposal.source for trial, _ in drawn if trial.arm == "control"),
        metric="hypervolume gained a kilojoule, by trial",
        unit="hypervolume a kJ",
        direction="higher",
        budget=f"{len(drawn)} trials, assigned by a coin that favours whoever gains more a joule",
    )
    values = [volume / energy if energy else 0.0 for _, (volume, energy) in drawn]
    by_agent, odds = [trial.arm == "agent" for trial, _ in drawn], [trial.probability for trial, _ in drawn]
    rng = np.random.default_rng([seed, _STREAM, len(trials)])
    control = light_study(what, values, by_agent, rng, probability=odds)
    return control, _sentence(control, sum(by_agent), odds[-1])


def _sentence(control: Control, agent_trials: int, last: float) -> str:
    verdict = verdict_sentence(control, "the agent", f"trials, {agent_trials} of them the agent's")
    return f"{verdict} Its share of the trials ended at {last:.0%}."
