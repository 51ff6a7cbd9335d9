"""What the agent of a compression is worth: hypervolume a joule, by arm. It decides the agent's share, and is reported.

A trial's joules begin where the one before ended, so thinking is paid for by whoever thought.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from agentlab.compress.objective import REFERENCE, alone, counts
from agentlab.stats.control import Control, ControlComparison, verdict_sentence
from agentlab.stats.fronts import front, hypervolume
from agentlab.stats.studies import light_study
from agentlab.study.control import Pair, describe_proposers, judge_pairs
from agentlab.study.state import StudyState, TrialState

_KJ = 1e3
_EVEN = 2.0  # trials of the mean that each arm is taken to have had before: few trials move the share little
_LEAST_SHARE, _MOST_SHARE = 0.1, 0.75  # of the agent: it can always recover, and there is always a control
_STEP = 0.05  # of the share: joules are never measured alike twice, and a resumed run should go on as the other
_STREAM = 5  # of the generator


def gains(trials: Sequence[TrialState]) -> list[tuple[float, float]]:
    """By how much each trial enlarged the hypervolume of all before it, and the kilojoules that it took. Pure."""
    gained: list[tuple[float, float]] = []
    objectives, volume = list[tuple[float, ...]](), 0.0
    for trial in trials:
        if counts(trial):
            objectives = [*objectives, trial.objectives]
            objectives = [objectives[index] for index in front(objectives)]
        now = hypervolume(objectives, REFERENCE)
        gained.append((now - volume, (trial.result.metrics.get("joules", 0.0) if trial.result else 0.0) / _KJ))
        volume = now
    return gained


def share(trials: Sequence[TrialState]) -> float:
    """The agent's share of what comes next: its hypervolume a joule, beside that of both arms. Pure."""
    rows = [
        (*gain, trial.arm)
        for gain, trial in zip(gains(trials), trials, strict=True)
        if trial.arm != "shared" and trial.result is not None
    ]
    volume, energy = sum(row[0] for row in rows), sum(row[1] for row in rows)
    if not volume or not energy:
        return 0.5
    rates, even = [], _EVEN / len(rows)
    for arm in ("agent", "control"):
        arm_rows = [row for row in rows if row[2] == arm]
        # as shares of the whole: what both arms gained may be too small to divide by
        volume_share, energy_share = sum(row[0] / volume for row in arm_rows), sum(row[1] / energy for row in arm_rows)
        rates.append((volume_share + even) / (energy_share + even))
    step = round(rates[0] / sum(rates) / _STEP) * _STEP
    return min(max(step, _LEAST_SHARE), _MOST_SHARE)


def agent_control(trials: Sequence[TrialState], seed: int) -> tuple[Control | None, str]:
    """The record of a search and what it means in a sentence; no record without an agent."""
    assigned = [(trial, gain) for trial, gain in zip(trials, gains(trials), strict=True) if trial.probability]
    if not assigned:
        return None, ""
    comparison = ControlComparison(
        agent="language model as proposer",
        control=describe_proposers(trial.proposal.source for trial, _ in assigned if trial.arm == "control"),
        metric="hypervolume gained per kilojoule and trial",
        unit="hypervolume a kJ",
        direction="higher",
        budget=f"{len(assigned)} trials, randomly assigned with odds that favour whichever gains more per joule",
    )
    values = [volume / energy if energy else 0.0 for _, (volume, energy) in assigned]
    by_agent, odds = [trial.arm == "agent" for trial, _ in assigned], [trial.probability for trial, _ in assigned]
    rng = np.random.default_rng([seed, _STREAM, len(trials)])
    control = light_study(comparison, values, by_agent, rng, probability=odds)
    verdict = verdict_sentence(control, "the agent", f"trials, {sum(by_agent)} of them assigned to the agent")
    note = (
        f"By the end, {odds[-1]:.0%} of the trials were assigned to the agent. Only --control full can show "
        "whether it helped or hurt."
    )
    return control, f"{verdict} {note}"


def joules_of(trials: Sequence[TrialState]) -> list[float]:
    """What each trial has cost whoever measured it."""
    return [float(alone(trial.result.metrics).get("joules", 0.0)) if trial.result else 0.0 for trial in trials]


def ended_within(trials: Sequence[TrialState], costs: Sequence[float], limit: float) -> list[TrialState]:
    """What counts and had ended when so much was spent. Pure."""
    within = zip(trials, accumulate(costs), strict=True)
    return [trial for trial, total_cost in within if total_cost <= limit * (1 + 1e-9) and counts(trial)]


def volume_of(trials: Sequence[TrialState]) -> float:
    """Hypervolume."""
    return hypervolume([trial.objectives for trial in trials], REFERENCE)


def pair_of(seed: int, joules: float, agent: StudyState, control: StudyState) -> Pair:
    """Two searches at equal cost; None is one that the budget of the run has cut short."""
    arms = (agent, control)
    within = [volume_of(ended_within(arm.trials, joules_of(arm.trials), joules)) for arm in arms]
    completed = [arm.exhausted or arm.amount_spent("joules") >= joules for arm in arms]
    ours, theirs = (volume if is_complete else None for volume, is_complete in zip(within, completed, strict=True))
    costs = round(agent.amount_spent("joules")), round(control.amount_spent("joules"))
    reasons = _first_loss_reason(agent.trials), _first_loss_reason(control.trials)
    return Pair(seed=seed, agent=ours, control=theirs, spent=costs, lost=reasons)


def _first_loss_reason(trials: Sequence[TrialState]) -> str:
    return next((trial.loss_reason for trial in trials if trial.loss_reason), "")


def paired_control(pairs: Sequence[Pair], joules: float, sources: Sequence[str], seed: int) -> tuple[Control, str]:
    """The record of a full control, and what it means in a sentence; `sources`: who proposed without the agent."""
    comparison = ControlComparison(
        agent="language model that plans and proposes some of the recipes",
        control=describe_proposers(sources),
        metric="hypervolume of a search",
        unit="hypervolume",
        direction="higher",
        budget=f"{joules:.0f} J in each search, including the model's calls; both searches of a pair share "
        "the seed and the first recipes, and each recipe is measured once and charged to every search that "
        "uses it",
    )
    control = judge_pairs(comparison, pairs, seed)
    return control, verdict_sentence(control, "the agent", "pairs of searches")
