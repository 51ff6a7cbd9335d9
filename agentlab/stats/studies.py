"""From measured values to a control record: the light study inside a run, and the full study of paired runs."""

from itertools import count

import numpy as np
from numpy.typing import ArrayLike

from agentlab.stats.control import MIN_PER_ARM, Comparison, Control, judge, not_measured
from agentlab.stats.intervals import randomisation_interval, sign_flip_interval, sign_flip_level

LEVEL = 0.95
LOWEST_LEVEL = 0.90  # of a full study whose pairs cannot carry 95 %; below this nobody would call it evidence


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

    The level is 95 %, or the highest that so few pairs can carry: 93.75 % with five, which then say `helped` only
    if the agent wins all five. With fewer than five nothing is measured. A tie counts as a pair.

    Args:
        what: the comparison.
        agent: (n,) metric of the runs with the agent.
        control: (n,) metric of their partners without.
        rng: draws sign flips beyond 14 pairs.

    Raises:
        ValueError: the arms differ in length, or a value is not finite.
    """
    a, b = np.asarray(agent, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError("pairs need both members")
    if a.size < (least := _pairs_for(LOWEST_LEVEL)):
        return not_measured(what, a.size, LEVEL, f"{a.size} of at least {least} pairs")
    better = b - a if what.direction == "lower" else a - b
    level = min(LEVEL, sign_flip_level(a.size))
    record = judge(what, a.size, sign_flip_interval(better, rng, level=level), "full")
    if level == LEVEL:
        return record
    why = f"{a.size} pairs cannot bound an effect at more than {level:.2%}; {LEVEL:.0%} takes {_pairs_for(LEVEL)}."
    return record.model_copy(update={"note": why})


def _pairs_for(level: float) -> int:
    """How many pairs it takes to bound an effect at this level."""
    return next(pairs for pairs in count(1) if sign_flip_level(pairs) >= level)
