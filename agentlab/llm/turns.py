"""Who may be asked now, and the wait until it is a model's turn: cool-downs, limits, free places, the clock."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from agentlab.errors import AgentlabError, LLMTimeoutError, RateLimitedError
from agentlab.llm import policy
from agentlab.llm.budget import tokens_of
from agentlab.llm.guard import ModelGuard, Ticket
from agentlab.llm.question import Candidate, Means, Question


class Turns:
    """The turns of one question's candidates."""

    def __init__(self, question: Question, means: Means, note: Callable[[Candidate, AgentlabError], None]) -> None:
        """`note` hears why a candidate was passed over for good. `tokens` are prompt and answer, about."""
        self._question = question
        self._means = means
        self._note = note
        self._now = asyncio.get_running_loop().time
        self.tokens = tokens_of(question.request.messages) + question.request.max_tokens

    def left(self, candidate: Candidate) -> float:
        """Seconds until the call has to be over if this model is the one that answers."""
        return self._question.start + candidate.total - self._now()

    def patience_with(self, candidate: Candidate) -> float:
        """Seconds for which a place at this model may be waited for: half of the call's, so that others can answer."""
        last = candidate == self._question.candidates[-1]
        return self.left(candidate) - (0.0 if last else candidate.total / 2)

    def next(self, pending: list[Candidate]) -> Candidate | None:
        """The first that may be asked now; else one whose breaker wants a probe; else the one due soonest, if in time.

        Whoever is passed over for good leaves `pending`.
        """
        soonest, least = None, math.inf
        for candidate in tuple(pending):
            delay = self._delay(candidate)
            if delay <= 0 < self.left(candidate):
                return candidate
            problem = self._never(candidate, delay)
            if problem is not None:
                pending.remove(candidate)
                self._note(candidate, problem)
            elif (wait := 0.0 if self._guard(candidate).probing_helps else delay) < least:
                soonest, least = candidate, wait
        if soonest is not None and least > min(policy.LONGEST_WAIT, self.left(soonest)):
            for candidate in pending:
                self._note(candidate, _patience(least))
            return None
        return soonest

    def ready(self, candidate: Candidate) -> bool:
        """Whether it may be asked now."""
        return self._delay(candidate) <= 0

    @asynccontextmanager
    async def of(self, candidate: Candidate) -> AsyncIterator[Ticket]:
        """Wait for its turn, and hold a place at its provider within the block. The ticket has to leave the guard.

        Raises:
            LLMTimeoutError, RateLimitedError, AuthError, UnknownModelError: it does not come in time.
        """
        guard, slots = self._guard(candidate), self._means.slots[candidate.provider]
        while True:
            await self._until_ready(candidate)
            try:
                async with asyncio.timeout(patience := max(0.0, self.patience_with(candidate))):
                    await slots.take()
            except TimeoutError:
                raise self._noted(
                    candidate, LLMTimeoutError(f"No place became free within {patience:.3g} seconds.")
                ) from None
            try:
                if self._delay(candidate) <= 0 or guard.probing_helps:
                    yield guard.enter(self._now(), self.tokens)
                    return
            finally:
                slots.free()

    def patience(self) -> float | None:
        """Seconds until the first candidate may be asked, when all of them asked to be left alone."""
        waits = []
        for candidate in self._question.candidates:
            waits.append(self._delay(candidate))
            if waits[-1] <= 0 or self._guard(candidate).probing_helps:
                return None
        wait = min(waits, default=math.inf)
        return wait if wait < math.inf else None

    async def _until_ready(self, candidate: Candidate) -> None:
        guard = self._guard(candidate)
        while (wait := self._delay(candidate)) > 0 and not guard.probing_helps:
            problem = self._never(candidate, wait)
            if problem is None and wait > min(policy.LONGEST_WAIT, self.left(candidate)):
                problem = _patience(wait)
            if problem is not None:
                raise self._noted(candidate, problem)
            await asyncio.sleep(wait)

    def _never(self, candidate: Candidate, delay: float) -> AgentlabError | None:
        """Why it will not be asked in this call, however long that waits."""
        if self.left(candidate) <= 0:
            return LLMTimeoutError("Not asked: the time of the call is over.")
        if delay < math.inf:
            return None
        reason = self._means.out_of_use[candidate.name]
        return type(reason)(f"Not asked again: {reason.message}", hint=reason.hint)

    def _noted(self, candidate: Candidate, error: AgentlabError) -> AgentlabError:
        self._note(candidate, error)
        return error

    def _guard(self, candidate: Candidate) -> ModelGuard:
        return self._means.guards[candidate.name]

    def _delay(self, candidate: Candidate) -> float:
        return self._guard(candidate).delay(self._now(), self.tokens)


def _patience(wait: float) -> RateLimitedError:
    return RateLimitedError(f"It is to be left alone for {wait:.0f} seconds.", retry_after=wait)
