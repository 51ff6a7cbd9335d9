"""A hedge: when the model that is asked is slower to begin than it nearly always was, the next ones are asked besides.

The first good answer counts, the other is given up; both are paid for (Dean and Barroso, "The Tail at Scale", 2013).
"""

import asyncio
from dataclasses import replace
from typing import Any

from agentlab.llm.attempts import AttemptLoop
from agentlab.llm.question import Means, Outcome, Question
from agentlab.llm.types import Attempt


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
            return await _race(running, asyncio.ensure_future(AttemptLoop(rest, means).run()))
        outcome = await running
        return outcome if outcome.error is None else after(outcome.attempts, await AttemptLoop(rest, means).run())
    finally:
        await given_up(running, begun)


async def _race(*runners: "asyncio.Future[Outcome]") -> Outcome:
    try:
        done, pending = await asyncio.wait(runners, return_when=asyncio.FIRST_COMPLETED)
        outcome = done.pop().result()
        if outcome.error is None or not pending:
            return outcome
        return after(outcome.attempts, await pending.pop())
    finally:
        await given_up(*runners)


def after(attempts: tuple[Attempt, ...], outcome: Outcome) -> Outcome:
    """The outcome, told with the attempts that went before."""
    return replace(outcome, attempts=(*attempts, *outcome.attempts))


async def given_up(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel what still runs, and wait until it has closed its connections."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
