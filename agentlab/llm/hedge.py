"""A hedge: when the model that is asked is slower to begin than it nearly always was, the next ones are asked besides.

The first good answer counts, the other is given up; both are paid for (Dean and Barroso, "The Tail at Scale", 2013).
"""

import asyncio
from dataclasses import replace
from typing import Any

from agentlab.llm import policy
from agentlab.llm.attempts import AttemptLoop
from agentlab.llm.question import Means, Outcome, Question


class HedgeBudget:
    """Lets a share of the calls ask a second model: each call brings its share of a token, a hedge takes one."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._tokens = 0.0

    def count(self) -> None:
        """One more call."""
        self._tokens = min(1.0, self._tokens + self._share)

    def allows(self) -> bool:
        """Whether a second model may be asked now; if so, that was its token."""
        if self._tokens < 1.0:
            return False
        self._tokens = 0.0
        return True


async def hedged(question: Question, means: Means, budget: HedgeBudget, patience: float | None) -> Outcome:
    """The answer of the first candidate, or of the others if that has not begun after `patience` seconds.

    None for `patience` says that too little is known of the first one to call it slow.
    """
    budget.count()
    if patience is None:
        return await AttemptLoop(question, means).run()
    first, rest = (replace(question, candidates=part) for part in (question.candidates[:1], question.candidates[1:]))
    loop = AttemptLoop(first, means)
    running, begun = asyncio.ensure_future(loop.run()), asyncio.ensure_future(loop.begun.wait())
    try:
        await asyncio.wait({running, begun}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not (running.done() or begun.done()) and budget.allows():
            return await _race(question.task, loop, running, AttemptLoop(rest, means))
        outcome = await running
        if not _may_go_on(outcome):
            return outcome
        return await AttemptLoop(rest, means, before=outcome.attempts).run()
    finally:
        await given_up(running, begun)


async def _race(task: str, first: AttemptLoop, running: "asyncio.Future[Outcome]", second: AttemptLoop) -> Outcome:
    """The first good answer, told with what both tried."""
    beside = asyncio.ensure_future(second.run())
    try:
        done, pending = await asyncio.wait({running, beside}, return_when=asyncio.FIRST_COMPLETED)
        outcome = done.pop().result()
        if _may_go_on(outcome) and pending:
            outcome = await pending.pop()
    finally:
        await given_up(running, beside)
    attempts = first.attempts + second.attempts
    error = policy.verdict(task, [each for each in attempts if each.error]) if _may_go_on(outcome) else outcome.error
    return replace(outcome, attempts=attempts, error=error)


def _may_go_on(outcome: Outcome) -> bool:
    """Whether another model may still answer."""
    return outcome.error is not None and policy.rule_for(outcome.error).move_on


async def given_up(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel what still runs, and wait until it has closed its connections."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
