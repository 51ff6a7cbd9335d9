"""From measured values to a control record: the light study inside a run, and the full study of paired runs."""

import numpy as np
from numpy.typing import ArrayLike

from agentlab.stats.control import LEVEL, MIN_PER_ARM, Control, ControlComparison, judge, least_pairs, not_measured
from agentlab.stats.intervals import Floats, randomisation_interval
from agentlab.stats.paired_tests import compare

_REDRAWS = 200  # of the assignment, for the smallest effect
_POWER = 0.8


def light_study(
    comparison: ControlComparison,
    values: ArrayLike,
    by_agent: ArrayLike,
    rng: np.random.Generator,
    *,
    probability: ArrayLike = 0.5,
) -> Control:
    """Units of one run that a coin gave to the agent or to its control.

    The smallest effect that would be shown is found by drawing the coin again over the units as they are without the
    measured effect: a constant effect moves the interval by itself, so it is shown wherever it exceeds the distance of
    the interval's lower end from zero. `values`: (n,) metric of each unit; `by_agent`: (n,) whether the agent got the
    unit.
    """
    y, z = np.asarray(values, dtype=np.float64), np.asarray(by_agent, dtype=bool)
    smaller = int(min(z.sum(), (~z).sum()))
    if smaller < MIN_PER_ARM:
        reason = f"one arm has only {smaller} of the {MIN_PER_ARM} observations needed"
        return not_measured(comparison, y.size, LEVEL, reason)
    if np.ptp(y) == 0:
        return not_measured(comparison, y.size, LEVEL, f"all {y.size} observations are equal")
    better = -y if comparison.direction == "lower" else y
    interval = randomisation_interval(better, z, rng, probability=probability, level=LEVEL)
    control = judge(comparison, y.size, interval, "light")
    if control.verdict == "not_measured":
        return control
    smallest = _smallest_effect(better - interval.estimate * z, probability, rng)
    supposing = "assuming the observed spread" if smallest else "too few observations to detect any effect"
    return control.model_copy(update={"smallest": smallest, "supposing": supposing})


def _smallest_effect(values: Floats, probability: ArrayLike, rng: np.random.Generator) -> float | None:
    """Of `values` (n,) without an effect; None where many draws of the coin leave an arm too small, or all equal."""
    needed = []
    for _ in range(_REDRAWS):
        treated = rng.random(values.size) < np.asarray(probability)
        if min(treated.sum(), (~treated).sum()) < MIN_PER_ARM:
            needed.append(np.inf)
        else:
            needed.append(-randomisation_interval(values, treated, rng, probability=probability, level=LEVEL).low)
    smallest = float(np.quantile(needed, _POWER, method="higher"))
    return smallest if 0 < smallest < np.inf else None


def full_study(
    comparison: ControlComparison, agent: ArrayLike, control: ArrayLike, rng: np.random.Generator
) -> Control:
    """Pairs of runs, with and without the agent, that share seed and budget.

    With fewer pairs than can reject at 5 % nothing is measured. A tie counts as a pair. `agent`: (n,) metric of the
    runs with the agent; `control`: (n,) metric of their partners without. `rng`: draws sign flips beyond 14 pairs.

    Raises:
        ValueError: the arms differ in length, or a value is not finite.
    """
    ours, theirs = np.asarray(agent, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if ours.size < (fewest_pairs := least_pairs()) and ours.shape == theirs.shape:
        return not_measured(comparison, ours.size, LEVEL, f"only {ours.size} of the {fewest_pairs} pairs needed")
    sides = (-ours, -theirs) if comparison.direction == "lower" else (ours, theirs)
    return judge(comparison, ours.size, compare(*sides, rng), "full")
