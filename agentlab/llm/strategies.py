"""How a question is put: to one model after another, or to several at once.

    single       the first model; if it fails, those of role `fallback`
    fallback     all models in the order of their roles
    fastest      the same, the primaries by the time they are expected to take
    adaptive     all models, in the order of a draw from what was learnt of their quality, latency and cost
    best_of_two, best_of_n    several primaries at the same time; a duplicate judges (`best_of`)

With `defaults.hedge` a second model may be asked when the first is slow to begin (`hedge`).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from agentlab.llm import choice
from agentlab.llm.attempts import AttemptLoop
from agentlab.llm.config import LLMConfig, Strategy
from agentlab.llm.hedge import HedgeBudget, hedged
from agentlab.llm.ledger.arm import Arm
from agentlab.llm.question import Candidate, Means, Outcome, Question, Sink

LOG = logging.getLogger("agentlab.llm")
_USUAL_TOKENS = 300  # an answer is seldom as long as it may be


@dataclass(frozen=True, slots=True)
class Strategist:
    """Answers the questions of one router."""

    config: LLMConfig
    means: Means
    arm: Callable[[str, str], Arm]  # what is known of (task, model) by now
    hedges: HedgeBudget
    warned: set[str] = field(default_factory=set)  # tasks that were told that answers cannot be compared

    async def answer(self, question: Question, strategy: Strategy, sink: Sink | None = None) -> Outcome:
        """Put a question. `sink` hears the answer while it comes, or whole when several were compared."""
        if strategy in ("best_of_two", "best_of_n"):
            several = self._several(question, 2 if strategy == "best_of_two" else self.config.defaults.answers)
            if several:
                from agentlab.llm.best_of import BestOf  # most programs never compare

                outcome = await BestOf(self.config, self.means, self.arm).answer(question, several)
                if sink is not None and outcome.error is None:
                    sink(outcome.model, outcome.delta)
                return outcome
            strategy = "single"
        question = replace(question, candidates=self._ordered(question, strategy))
        if sink is None and self.config.defaults.hedge and len(question.candidates) > 1:
            first = self.arm(question.task, question.candidates[0].name)
            return await hedged(question, self.means, self.hedges, choice.hedge_after(first))
        return await AttemptLoop(question, self.means, sink).run()

    def _ordered(self, question: Question, strategy: Strategy) -> tuple[Candidate, ...]:
        candidates, roles = question.candidates, self.config.roles
        if strategy == "single":
            return candidates[:1] + tuple(each for each in candidates[1:] if each.name in roles.fallback)
        if strategy == "fallback" or len(candidates) < 2:
            return candidates
        by_name = {each.name: each for each in candidates}
        arms = {name: self.arm(question.task, name) for name in by_name}
        if strategy == "fastest":
            primaries = [name for name in by_name if name in roles.primary]
            first = choice.by_speed(primaries, arms, self.means.random)
        else:
            weights, tokens = self.config.defaults.weights, min(question.request.max_tokens, _USUAL_TOKENS)
            first = choice.thompson(list(by_name), arms, weights, tokens, self.means.random)
        return tuple(by_name[name] for name in dict.fromkeys([*first, *by_name]))

    def _several(self, question: Question, wanted: int) -> tuple[Candidate, ...]:
        """The primaries to compare; none, with a warning once a task, when they or the judge are missing."""
        roles = self.config.roles
        primaries = tuple(each for each in question.candidates if each.name in roles.primary)[:wanted]
        if len(primaries) >= 2 and roles.duplicate:
            return primaries
        if question.task not in self.warned:
            self.warned.add(question.task)
            missing = "a second model of role primary" if len(primaries) < 2 else "a model of role duplicate, to judge"
            LOG.warning("%s: comparing answers needs %s; one model is asked instead.", question.task, missing)
        return ()
