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
from agentlab.search.budget import Budget
from agentlab.search.types import meaning
from agentlab.stats.control import Comparison, Control
from agentlab.stats.studies import full_study

MIN_PAIRED_TRIALS = 2
_STREAM = 3  # apart from the other generators of a study


@dataclass(frozen=True, slots=True)
class Pair:
    """Lowest validation MSE of two studies of one seed; None where every trial failed."""

    seed: int
    agent: float | None
    control: float | None


def run_pairs(bench: Bench, run: Run, main: StudyState) -> list[Pair]:
    """Run the studies that the pairs lack; the main study is the agent's half of the first pair.

    All get as many trials as that one had, whatever ended it, and nobody reviews their proposals.
    """
    trials = len(main.trials)
    halves = [(name, number) for number in range(bench.config.control_seeds) for name in ("agent", "control")][1:]
    found = {("agent", 0): lowest(main)}
    for place, (name, number) in enumerate(halves, start=1):
        branch = Branch(run, f"{name}-{number}")
        seed = bench.config.seed + number
        branch.emit(
            "study.branched", branch.name, seed=seed, agent=name == "agent", trials=trials, place=place, of=len(halves)
        )
        found[name, number] = lowest(_search(bench, branch, seed, trials, agent=name == "agent"))
    return [
        Pair(bench.config.seed + number, found["agent", number], found["control", number])
        for number in range(bench.config.control_seeds)
    ]


def _search(bench: Bench, branch: Branch, seed: int, trials: int, *, agent: bool) -> StudyState:
    study = bench.study(branch, seed, agent=agent, scope=f"{branch.name}/", paired=Budget(trials))
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
        agent="language model as proposer of about half of the trials, and asked about near ties",
        control=f"{meaning(base)} ({base}) alone",
        metric="lowest validation MSE of a study",
        unit="scaled",
        direction="lower",
        budget=f"{trials} trials in each study, the same first one and the same seed in a pair",
    )
    return full_study(
        what, [a for a, _ in whole], [c for _, c in whole], np.random.default_rng([seed, _STREAM, len(whole)])
    )
