"""Several models answer the same question at the same time, and a judge picks the best answer."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from agentlab.answers.compare import same_texts
from agentlab.answers.judge import JudgeBallot, both_orders, decide_async, place_of
from agentlab.llm import judge, policy, structured
from agentlab.llm.attempts import AttemptLoop
from agentlab.llm.concurrency import give_up
from agentlab.llm.config import LLMConfig
from agentlab.llm.ledger.arm import Arm
from agentlab.llm.question import RouterCandidate, RouterOutcome, RouterQuestion, RouterServices, candidate_of
from agentlab.llm.types import Attempt, ModelRequest, Timing

LOG = logging.getLogger("agentlab.llm")
_GRACE, _LEAST_GRACE = 2.0, 1.0  # once an answer is there, the others get this many times its seconds, at least one


@dataclass(frozen=True, slots=True)
class RouterBestOf:
    """Compares answers. What the losers and the judge cost is part of the outcome."""

    config: LLMConfig
    services: RouterServices
    arm: Callable[[str, str], Arm]  # what is known of (task, model) by now

    async def answer(self, question: RouterQuestion, several: tuple[RouterCandidate, ...]) -> RouterOutcome:
        """The best answer of several models; the other candidates are asked if none of them has one."""
        later = tuple(candidate for candidate in question.candidates if candidate not in several)
        questions = [replace(question, candidates=(candidate,), later=later) for candidate in several]
        loops = [AttemptLoop(single, self.services) for single in questions]
        outcomes = await self._all(question, loops)
        attempts = tuple(chain.from_iterable(loop.attempts for loop in loops))
        good = [outcome for outcome in outcomes if outcome.error is None]
        if not good:
            final = next((o for o in outcomes if o.error and not policy.rule_for(o.error).move_on), None)
            if final is not None:  # what one refuses for good is not shopped around
                return replace(final, attempts=attempts)
            return await AttemptLoop(replace(question, candidates=later), self.services, before=attempts).run()
        if len(good) == 1 or same_texts([_judge_text(outcome) for outcome in good]):
            return replace(good[0], attempts=attempts)
        best, judging = await self._judge_outcomes(question, good)
        seconds = asyncio.get_running_loop().time() - question.start
        return replace(best, attempts=attempts + judging, timing=Timing(seconds, seconds))

    async def _all(self, question: RouterQuestion, loops: Sequence[AttemptLoop]) -> list[RouterOutcome]:
        """Their outcomes, in their order. Who is much slower than the first good one is given up."""
        clock = asyncio.get_running_loop().time
        asking = [asyncio.ensure_future(loop.run()) for loop in loops]
        pending, until = set(asking), None
        try:
            while pending:
                seconds_left = None if until is None else max(0.0, until - clock())
                done, pending = await asyncio.wait(pending, timeout=seconds_left, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                if until is None and any(task.result().error is None for task in done):
                    until = clock() + max(_LEAST_GRACE, _GRACE * (clock() - question.start))
            return [task.result() for task in asking if task.done()]
        finally:
            await give_up(*asking)

    async def _judge_outcomes(
        self, question: RouterQuestion, good: list[RouterOutcome]
    ) -> tuple[RouterOutcome, tuple[Attempt, ...]]:
        """The best answer, and what judging took. A judge that fails or wavers leaves it to what was learnt before."""
        verdicts: list[RouterOutcome] = []

        async def ask(ballots: list[JudgeBallot]) -> list[int | None]:
            asking = [asyncio.ensure_future(self._verdict(question, ballot)) for ballot in ballots]
            try:
                verdicts.extend(await asyncio.gather(*asking))
            finally:
                await give_up(*asking)
            return [None if verdict.error else place_of(verdict.value.best) for verdict in verdicts]

        case = judge.case(question.request.messages, [_judge_text(outcome) for outcome in good])
        (match,) = await decide_async(both_orders(case, [tuple(range(len(good)))]), ask)
        index = match.winner
        best = self._preferred_outcome(question.task, good) if index is None else good[index]
        LOG.debug("%s: the judge %s, %s", question.task, "wavered" if index is None else "agreed", best.model)
        if index is not None:
            for outcome in good:
                self.services.observe.quality(question.task, outcome.model, float(outcome is best))
        return best, tuple(chain.from_iterable(verdict.attempts for verdict in verdicts))

    async def _verdict(self, question: RouterQuestion, ballot: JudgeBallot) -> RouterOutcome:
        """One verdict, within the clock of the question."""
        exception = self.config.tasks.get(judge.TASK)
        has_own_roles = exception is not None and exception.roles is not None
        names = self.config.candidates(judge.TASK) if has_own_roles else self.config.roles.duplicate
        temperature, max_tokens = self.config.sampling(judge.TASK)
        request = ModelRequest("", judge.messages(ballot), structured.schema_of(judge.Verdict), temperature, max_tokens)
        longest = max(candidate.total for candidate in question.candidates)
        judges = (candidate_of(self.config, name) for name in names)
        candidates = tuple(replace(candidate, total=min(candidate.total, longest)) for candidate in judges)
        check = structured.checker(judge.Verdict)
        judge_question = RouterQuestion(judge.TASK, request, check, candidates, question.start)
        return await AttemptLoop(judge_question, self.services).run()

    def _preferred_outcome(self, task: str, good: list[RouterOutcome]) -> RouterOutcome:
        """The one whose model was better so far, then the cheaper, then the earlier in the config."""

        def rank(outcome: RouterOutcome) -> tuple[float, float]:
            arm = self.arm(task, outcome.model)
            return -(arm.quality_sum + 1) / (arm.quality_count + 2), outcome.usage.cost_usd or 0.0

        return min(good, key=rank)


def _judge_text(outcome: RouterOutcome) -> str:
    """What a judge sees of an answer: what a model calls is part of it."""
    return "\n".join([outcome.text, *(f"{call.name}({call.arguments})" for call in outcome.tool_calls)])
