"""Full control: the study again and again, with the language model and without it, from the same seeds.

The light control shares one history between agent and optimiser, so each profits from the other. Here each pair of
studies has a seed, a first trial and a number of trials in common, and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agentlab.nas.state import StudyState
from agentlab.nas.study import Bench, search
from agentlab.runs.branch import Branch
from agentlab.runs.run import Run
from agentlab.stats.control import Comparison, Control
from agentlab.stats.studies import full_study

_STREAM = 3  # apart from the other generators of a study


@dataclass(frozen=True, slots=True)
class Pair:
    """Lowest validation MSE of two studies of one seed; None where every trial failed."""

    seed: int
    agent: float | None
    control: float | None


def run_pairs(bench: Bench, run: Run, main: StudyState) -> list[Pair]:
    """Run the studies that the pairs lack; the main study is the agent's half of the first pair."""
    pairs = []
    for number in range(bench.config.control_seeds):
        seed = bench.config.seed + number
        agent = main if number == 0 else _branch(bench, run, f"agent-{number}", seed, agent=True)
        control = _branch(bench, run, f"control-{number}", seed, agent=False)
        pairs.append(Pair(seed, lowest(agent), lowest(control)))
    return pairs


def _branch(bench: Bench, run: Run, name: str, seed: int, *, agent: bool) -> StudyState:
    branch = Branch(run, name)
    study = bench.study(branch, seed, agent=agent, scope=f"{name}/")
    branch.emit("study.branched", name, seed=seed, agent=agent, trials=bench.config.max_iterations)
    try:
        return search(study, bench.context.stop.check)
    finally:
        study.executor.close()


def lowest(state: StudyState) -> float | None:
    """The lowest validation MSE that a study has measured."""
    ranked = state.ranked
    return ranked[0].value if ranked else None


def full_control(pairs: Sequence[Pair], trials: int, base: str, seed: int) -> Control:
    """The control record of paired studies. A pair with a study in which every trial failed is left out."""
    whole = [(pair.agent, pair.control) for pair in pairs if pair.agent is not None and pair.control is not None]
    what = Comparison(
        agent="language model as proposer of about half of the trials",
        control=f"{base} alone",
        metric="lowest validation MSE of a study",
        unit="scaled",
        direction="lower",
        budget=f"{trials} trials in each study, the same first one and the same seed in a pair",
    )
    return full_study(
        what, [a for a, _ in whole], [c for _, c in whole], np.random.default_rng([seed, _STREAM, len(whole)])
    )
