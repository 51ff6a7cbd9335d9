"""From measured values to a control record: the light study inside a run, and the full study of paired runs."""

import numpy as np
from numpy.typing import ArrayLike

from agentlab.stats.control import LEVEL, MIN_PER_ARM, Comparison, Control, judge, least_pairs, not_measured
from agentlab.stats.intervals import randomisation_interval
from agentlab.stats.referee import compare


def light_study(
    what: Comparison, values: ArrayLike, by_agent: ArrayLike, rng: np.random.Generator, *, probability: ArrayLike = 0.5
) -> Control:
    """Units of one run that a coin gave to the agent or to its control.

    Args:
        what: the comparison.
        values: (n,) metric of each unit.
        by_agent: (n,) whether the agent got the unit.
        rng: draws assignments.
        probability: of the agent, for all units or for each.
    """
    y, z = np.asarray(values, dtype=np.float64), np.asarray(by_agent, dtype=bool)
    smaller = int(min(z.sum(), (~z).sum()))
    if smaller < MIN_PER_ARM:
        why = f"an arm has {smaller} of at least {MIN_PER_ARM} observations"
        return not_measured(what, y.size, LEVEL, why)
    better = -y if what.direction == "lower" else y
    return judge(what, y.size, randomisation_interval(better, z, rng, probability=probability, level=LEVEL), "light")


def full_study(what: Comparison, agent: ArrayLike, control: ArrayLike, rng: np.random.Generator) -> Control:
    """Pairs of runs, with and without the agent, that share seed and budget.

    With fewer pairs than can reject at 5 % nothing is measured. A tie counts as a pair.

    Args:
        what: the comparison.
        agent: (n,) metric of the runs with the agent.
        control: (n,) metric of their partners without.
        rng: draws sign flips beyond 14 pairs.

    Raises:
        ValueError: the arms differ in length, or a value is not finite.
    """
    ours, theirs = np.asarray(agent, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if ours.size < (least := least_pairs()) and ours.shape == theirs.shape:
        return not_measured(what, ours.size, LEVEL, f"{ours.size} of at least {least} pairs")
    sides = (-ours, -theirs) if what.direction == "lower" else (ours, theirs)
    return judge(what, ours.size, compare(*sides, rng), "full")
