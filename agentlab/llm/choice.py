"""Which model to ask first, by what was learnt of quality, speed and cost. Pure: chance comes in.

`thompson` draws what each model may be like, given the evidence, and orders them by the utility of the draw, so that
a model is tried as often as it may be the best one (Thompson 1933). A service may have changed since it was last
asked; with the probability of that, its speed and its success are drawn as if it had never been asked (Mellor and
Shapiro 2013, "Thompson sampling in switching environments"), so that one which recovered is found again.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random

from agentlab.llm.config import Weights
from agentlab.llm.ledger.arm import Arm

CHANGES = 3600.0  # seconds between two changes of a service, on average
_TOKENS = 200  # of an answer, where nobody says how many are expected
_SECONDS_SCALE, _USD_SCALE = 10.0, 0.01  # of the utility
# Beliefs before any evidence: Beta(a, b) of success and quality; median and variance of log seconds.
_SUCCESS, _QUALITY = (9.0, 1.0), (2.0, 1.0)
_FIRST, _RATE = math.log(1.0), math.log(0.02)  # to the first content; per token
_VARIANCE = 1.0  # worth one observation
_ENOUGH = 5.0  # observations for a quantile
_P90 = 1.2816  # of the standard normal distribution
_EMPTY = Arm()
_Gauss = Callable[[float, float], float]  # mean, standard deviation -> draw


def by_speed(names: Sequence[str], arms: Mapping[str, Arm], rng: Random) -> list[str]:
    """`fastest`: untried models first, in any order, then by expected seconds until an answer succeeds.

    Args:
        names: the models to order; one without an arm is untried.
        arms: the evidence at this task, by name.
        rng: orders the untried, and tells which of the others may have changed since they were last asked.
    """
    newest = _newest(names, arms)

    def seconds(name: str) -> tuple[float, float]:
        arm = arms.get(name, _EMPTY)
        if arm.successes + arm.failures == 0:
            return 0.0, rng.random()
        if _may_have_changed(arm, newest, rng):
            return _drawn_seconds(_EMPTY, _TOKENS, rng.gauss), 0.0
        success = (arm.successes + _SUCCESS[0]) / (arm.successes + arm.failures + sum(_SUCCESS))
        first = arm.first_mean if arm.first_count else _FIRST
        rate = arm.rate_mean if arm.rate_count else _RATE
        return (math.exp(first) + _TOKENS * math.exp(rate)) / success, 0.0

    return sorted(names, key=seconds)


def thompson(
    names: Sequence[str], arms: Mapping[str, Arm], weights: Weights, expected_tokens: int, rng: Random
) -> list[str]:
    """`adaptive`: the models by the utility of one draw each, best first.

    The utility is success x (quality - latency - cost), each with its weight: see `Weights`. An unknown cost weighs
    nothing, which does not mean that the model is free. While no answer at this task was ever judged, qualities are
    taken as equal: draws from no evidence would only be noise.

    Args:
        names: the models to order; one without an arm is untried.
        arms: the evidence at this task, by name.
        weights: what is preferred.
        expected_tokens: of the answer.
        rng: draws.
    """
    newest = _newest(names, arms)
    judged = any(arms[name].quality_count > 0 for name in names if name in arms)
    gauss = rng.gauss

    def utility(name: str) -> float:
        arm = arms.get(name, _EMPTY)
        service = _EMPTY if _may_have_changed(arm, newest, rng) else arm
        success = _drawn_share(service.successes + _SUCCESS[0], service.failures + _SUCCESS[1], gauss)
        quality = 1.0
        if judged:
            bad = arm.quality_count - arm.quality_sum
            quality = _drawn_share(arm.quality_sum + _QUALITY[0], bad + _QUALITY[1], gauss)
        seconds = _drawn_seconds(service, expected_tokens, gauss)
        usd = arm.cost_sum / arm.cost_tokens * expected_tokens if arm.cost_tokens else 0.0
        value = (
            weights.quality * quality
            - weights.latency * math.log1p(seconds / _SECONDS_SCALE)
            - weights.cost * math.log1p(usd / _USD_SCALE)
        )
        return value * success if value > 0 else value / max(success, 1e-3)  # failing never makes a bad one better

    return sorted(names, key=utility, reverse=True)


def hedge_after(arm: Arm) -> float | None:
    """Seconds after which 9 of 10 answers have begun; None: too little evidence to tell."""
    if arm.first_count < _ENOUGH:
        return None
    return math.exp(arm.first_mean + _P90 * math.sqrt(arm.first_m2 / arm.first_count))


def _newest(names: Sequence[str], arms: Mapping[str, Arm]) -> float:
    """The time of the newest evidence stands for now: it is the others' calls that make an arm's evidence old."""
    return max((arms[name].at for name in names if name in arms), default=0.0)


def _may_have_changed(arm: Arm, newest: float, rng: Random) -> bool:
    return rng.random() < -math.expm1((arm.at - newest) / CHANGES)


def _drawn_share(good: float, bad: float, gauss: _Gauss) -> float:
    """From Beta(good, bad), as a normal draw with its moments, cut to 0..1: half the time, and the same regret."""
    count = good + bad
    mean = good / count
    drawn = gauss(mean, math.sqrt(mean * (1 - mean) / (count + 1)))
    return 0.0 if drawn < 0 else 1.0 if drawn > 1 else drawn


def _drawn_seconds(arm: Arm, tokens: int, gauss: _Gauss) -> float:
    first = _drawn_mean(arm.first_count, arm.first_mean, arm.first_m2, _FIRST, gauss)
    rate = _drawn_mean(arm.rate_count, arm.rate_mean, arm.rate_m2, _RATE, gauss)
    return math.exp(first) + tokens * math.exp(rate)


def _drawn_mean(count: float, mean: float, m2: float, otherwise: float, gauss: _Gauss) -> float:
    """A mean of log seconds that the evidence allows; the less of it, the wider."""
    return gauss(mean if count else otherwise, math.sqrt(m2 + _VARIANCE) / (count + 1))
