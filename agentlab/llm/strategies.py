"""How a question is put: to one model after another, or to several at once.

    single       the first model; if it fails, those of role `fallback`
    fallback     all models in the order of their roles
    fastest      the same, the primaries by the time they are expected to take
    adaptive     all models, in the order of a draw from what was learnt of their quality, latency and cost
    best_of_two, best_of_n    several primaries at the same time; a duplicate judges (`best_of`)

With `defaults.hedge` a second model may be asked when the first is slow to begin (`ask_hedged`).
"""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from agentlab.llm import policy
from agentlab.llm.attempts import AttemptLoop
from agentlab.llm.concurrency import give_up
from agentlab.llm.config import LLMConfig, Weights
from agentlab.llm.ledger.arm import Arm
from agentlab.llm.provider_config import Strategy
from agentlab.llm.question import RouterCandidate, RouterOutcome, RouterQuestion, RouterServices, Sink

LOG = logging.getLogger("agentlab.llm")
_USUAL_TOKENS = 300  # an answer is seldom as long as it may be
# What is believed of a model's speed, quality and cost:
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


@dataclass(frozen=True, slots=True)
class Strategist:
    """Answers the questions of one router."""

    config: LLMConfig
    services: RouterServices
    arm: Callable[[str, str], Arm]  # what is known of (task, model) by now
    hedges: "HedgeBudget"
    warned: set[str] = field(default_factory=set)  # tasks that were told that answers cannot be compared

    async def answer(self, question: RouterQuestion, strategy: Strategy, sink: Sink | None = None) -> RouterOutcome:
        """Put a question. `sink` hears the answer while it comes, or whole when several were compared."""
        if strategy in ("best_of_two", "best_of_n"):
            several = self._several(question, 2 if strategy == "best_of_two" else self.config.defaults.answers)
            if several:
                from agentlab.llm.best_of import RouterBestOf  # most programs never compare

                outcome = await RouterBestOf(self.config, self.services, self.arm).answer(question, several)
                if sink is not None and outcome.error is None:
                    sink(outcome.model, outcome.delta)
                return outcome
            strategy = "single"
        question = replace(question, candidates=self._order_candidates(question, strategy))
        if sink is None and self.config.defaults.hedge and len(question.candidates) > 1:
            first = self.arm(question.task, question.candidates[0].name)
            return await ask_hedged(question, self.services, self.hedges, hedge_after(first))
        return await AttemptLoop(question, self.services, sink).run()

    def _order_candidates(self, question: RouterQuestion, strategy: Strategy) -> tuple[RouterCandidate, ...]:
        candidates, roles = question.candidates, self.config.roles
        if strategy == "single":
            return candidates[:1] + tuple(candidate for candidate in candidates[1:] if candidate.name in roles.fallback)
        if strategy == "fallback" or len(candidates) < 2:
            return candidates
        by_name = {candidate.name: candidate for candidate in candidates}
        arms = {name: self.arm(question.task, name) for name in by_name}
        if strategy == "fastest":
            primaries = [name for name in by_name if name in roles.primary]
            first = by_speed(primaries, arms, self.services.random)
        else:
            weights, tokens = self.config.defaults.weights, min(question.request.max_tokens, _USUAL_TOKENS)
            first = thompson(list(by_name), arms, weights, tokens, self.services.random)
        return tuple(by_name[name] for name in dict.fromkeys([*first, *by_name]))

    def _several(self, question: RouterQuestion, count: int) -> tuple[RouterCandidate, ...]:
        """The primaries to compare; none, with a warning once a task, when they or the judge are missing."""
        roles = self.config.roles
        primaries = tuple(candidate for candidate in question.candidates if candidate.name in roles.primary)[:count]
        if len(primaries) >= 2 and roles.duplicate:
            return primaries
        if question.task not in self.warned:
            self.warned.add(question.task)
            missing = (
                "a second model with role primary"
                if len(primaries) < 2
                else "a model with role duplicate, as the judge"
            )
            LOG.warning("%s: comparing answers needs %s; a single model is used instead.", question.task, missing)
        return ()


def by_speed(names: Sequence[str], arms: Mapping[str, Arm], rng: Random) -> list[str]:
    """`fastest`: untried models first, in any order, then by expected seconds until an answer succeeds. Pure.

    A model without an arm is untried. `rng` also tells which of the others may have changed since they were last asked.
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
    """`adaptive`: the models by the utility of one draw each, best first; one without an arm is untried. Pure.

    It draws what each model may be like, given the evidence, so that a model is tried as often as it may be the best
    one (Thompson 1933). A service may have changed since it was last asked; with the probability of that, its speed and
    its success are drawn as if it had never been asked (Mellor and Shapiro 2013, "Thompson sampling in switching
    environments"), so that one which recovered is found again.

    The utility is success x (quality - latency - cost), each with its weight: see `Weights`. An unknown cost weighs
    nothing, which does not mean that the model is free. While no answer at this task was ever judged, qualities are
    taken as equal: draws from no evidence would only be noise.
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
    share = gauss(mean, math.sqrt(mean * (1 - mean) / (count + 1)))
    return 0.0 if share < 0 else 1.0 if share > 1 else share


def _drawn_seconds(arm: Arm, tokens: int, gauss: _Gauss) -> float:
    first = _drawn_mean(arm.first_count, arm.first_mean, arm.first_m2, _FIRST, gauss)
    rate = _drawn_mean(arm.rate_count, arm.rate_mean, arm.rate_m2, _RATE, gauss)
    return math.exp(first) + tokens * math.exp(rate)


def _drawn_mean(count: float, mean: float, m2: float, otherwise: float, gauss: _Gauss) -> float:
    """A mean of log seconds that the evidence allows; the less of it, the wider."""
    return gauss(mean if count else otherwise, math.sqrt(m2 + _VARIANCE) / (count + 1))


class HedgeBudget:
    """Lets a share of the calls ask a second model: each call brings its share of a token, a hedge takes one."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._tokens = 0.0

    def count(self) -> None:
        self._tokens = min(1.0, self._tokens + self._share)

    def allows(self) -> bool:
        """Whether a second model may be asked now; if so, that was its token."""
        if self._tokens < 1.0:
            return False
        self._tokens = 0.0
        return True


async def ask_hedged(
    question: RouterQuestion, services: RouterServices, budget: HedgeBudget, patience: float | None
) -> RouterOutcome:
    """The answer of the first candidate; the others are asked besides if it has not begun after `patience` seconds.

    The first good answer counts, the other is given up; both are paid for (Dean and Barroso, "The Tail at Scale",
    2013). None for `patience` says that too little is known of the first one to call it slow.
    """
    budget.count()
    if patience is None:
        return await AttemptLoop(question, services).run()
    later = question.candidates[1:]
    first = replace(question, candidates=question.candidates[:1], later=later)
    later_question = replace(question, candidates=later)
    loop = AttemptLoop(first, services)
    running, first_piece = asyncio.ensure_future(loop.run()), asyncio.ensure_future(loop.begun.wait())
    try:
        await asyncio.wait({running, first_piece}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not (running.done() or first_piece.done()) and budget.allows():
            return await _race(question.task, loop, running, AttemptLoop(later_question, services))
        outcome = await running
        if not _may_go_on(outcome):
            return outcome
        return await AttemptLoop(later_question, services, before=outcome.attempts).run()
    finally:
        await give_up(running, first_piece)


async def _race(
    task: str, first: AttemptLoop, running: "asyncio.Future[RouterOutcome]", second: AttemptLoop
) -> RouterOutcome:
    """The first good answer, told with what both tried."""
    second_running = asyncio.ensure_future(second.run())
    try:
        done, pending = await asyncio.wait({running, second_running}, return_when=asyncio.FIRST_COMPLETED)
        outcome = done.pop().result()
        if _may_go_on(outcome) and pending:
            outcome = await pending.pop()
    finally:
        await give_up(running, second_running)
    attempts = first.attempts + second.attempts
    if not _may_go_on(outcome):
        return replace(outcome, attempts=attempts)
    error = policy.verdict(task, [attempt for attempt in attempts if attempt.error])
    return replace(outcome, attempts=attempts, error=error)


def _may_go_on(outcome: RouterOutcome) -> bool:
    return outcome.error is not None and policy.rule_for(outcome.error).move_on
