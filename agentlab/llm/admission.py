"""Who may be asked now, and for how long; the wait until it is a model's turn: cool-downs, limits, free places."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from agentlab.errors import AgentlabError, LLMTimeoutError, RateLimitedError, ServerFaultError
from agentlab.llm import policy
from agentlab.llm.budget import tokens_of
from agentlab.llm.guard import ModelGuard, Ticket
from agentlab.llm.question import RouterCandidate, RouterQuestion, RouterServices

_SHARE, _LEAST_SHARE = 0.1, 1.0  # of its clock, and seconds, that a model behind others is left


def turn_end(elapsed: float, clocks: Sequence[float]) -> float:
    """When the turn of the first model has to end, so that those behind it have theirs. Pure.

    Each one behind is left a tenth of its clock, at least a second; where that is more than there is, all have as much.
    `elapsed`: seconds since the call began; `clocks`: seconds after the beginning at which a model's clock runs out,
    for the first one and those behind it.
    """
    latest = math.inf
    for clock in reversed(clocks[1:]):
        latest = min(latest, clock) - max(_SHARE * clock, _LEAST_SHARE)
    even = min((clock - elapsed) / count for count, clock in enumerate(clocks, 1))
    return max(min(latest, clocks[0]), elapsed + even)


def after_overflow(pending: Sequence[RouterCandidate], window: int | None, tokens: int) -> list[RouterCandidate]:
    """Who may hold what overflowed a window, larger and unknown windows first; None is unknown. Pure.

    A server's window may be smaller than the config says, so whoever should hold `tokens`, the estimate, is tried, too.
    """
    if window is None:
        return list(pending)
    larger = [candidate for candidate in pending if candidate.context is None or candidate.context > window]
    fitting = [candidate for candidate in pending if candidate not in larger and tokens <= (candidate.context or 0)]
    return larger + fitting


class Admission:
    """The turns of one question's candidates."""

    def __init__(
        self, question: RouterQuestion, services: RouterServices, note: Callable[[RouterCandidate, AgentlabError], None]
    ) -> None:
        """`note` hears why a candidate was passed over for good. `tokens` are prompt and answer, about."""
        self._question = question
        self._services = services
        self._note = note
        self._now = asyncio.get_running_loop().time
        self.end = self._place_end = 0.0  # of the turn that has begun, and of its wait for a place; in the loop's time
        self.tokens = tokens_of(question.request.messages) + question.request.max_tokens

    def begin(self, candidate: RouterCandidate, pending: Sequence[RouterCandidate]) -> None:
        """Start the turn of a model. Its clock leaves a share to those of `pending` that can still be asked."""
        now, start = self._now(), self._question.start
        rivals = (rival for rival in (*pending, *self._question.later) if rival is not candidate)
        totals = [rival.total for rival in rivals if self._in_time(rival)]
        self.end = start + turn_end(now - start, [candidate.total, *totals])
        self._place_end = (now + self.end) / 2 if totals else self.end

    @property
    def seconds_left(self) -> float:
        return self.end - self._now()

    @property
    def patience_for_place(self) -> float:
        """Seconds for which a place may be waited for: half of a turn, where others are behind it."""
        return self._place_end - self._now()

    def next(self, pending: list[RouterCandidate]) -> RouterCandidate | None:
        """The first that may be asked now; else one whose breaker wants a probe; else the one due soonest, if in time.

        Whoever is passed over for good leaves `pending`.
        """
        soonest, shortest_wait = None, math.inf
        for candidate in tuple(pending):
            delay = self._delay(candidate)
            if delay <= 0 < self._time(candidate):
                self.begin(candidate, pending)
                return candidate
            problem = self._never(candidate, delay)
            if problem is not None:
                pending.remove(candidate)
                self._note(candidate, problem)
            elif (wait := 0.0 if self._may_probe(candidate) else delay) < shortest_wait:
                soonest, shortest_wait = candidate, wait
        if soonest is None:
            return None
        if shortest_wait > min(policy.LONGEST_WAIT, self._time(soonest)):
            for candidate in pending:
                self._note(candidate, _patience(shortest_wait))
            return None
        self.begin(soonest, pending)
        return soonest

    def ready(self, candidate: RouterCandidate) -> bool:
        return self._delay(candidate) <= 0

    @asynccontextmanager
    async def of(self, candidate: RouterCandidate) -> AsyncIterator[Ticket]:
        """Wait for its turn, and hold a place at its provider within the block. The ticket has to leave the guard.

        Raises:
            LLMTimeoutError, RateLimitedError, AuthError, UnknownModelError: it does not come in time.
        """
        slots = self._services.slots[candidate.provider]
        while True:
            await self._until_ready(candidate)
            try:
                async with asyncio.timeout(patience := max(0.0, self.patience_for_place)):
                    await slots.take()
            except TimeoutError:
                error = LLMTimeoutError(f"No slot became free within {patience:.3g} seconds.")
                raise self._note_error(candidate, error) from None
            try:
                if self._delay(candidate) <= 0 or self._may_probe(candidate):
                    yield self._guard(candidate).enter(self._now(), self.tokens)
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

    async def _until_ready(self, candidate: RouterCandidate) -> None:
        while (wait := self._delay(candidate)) > 0 and not self._may_probe(candidate):
            problem = self._never(candidate, wait)
            if problem is None and wait > min(policy.LONGEST_WAIT, self.seconds_left):
                problem = _patience(wait)
            if problem is not None:
                raise self._note_error(candidate, problem)
            await asyncio.sleep(wait)

    def _never(self, candidate: RouterCandidate, delay: float) -> AgentlabError | None:
        """Why it will not be asked in this call, however long that waits."""
        if self._time(candidate) <= 0:
            return LLMTimeoutError("Not asked: the call is out of time.")
        if self._question.fail_fast and self._guard(candidate).state(self._now()) == "open":
            return ServerFaultError(f"{policy.BREAKER_OPEN}; the next try is in {delay:.0f} s.")
        if delay < math.inf:
            return None
        reason = self._services.out_of_use[candidate.name]
        return type(reason)(f"Not asked again: {reason.message}", hint=reason.hint)

    def _in_time(self, candidate: RouterCandidate) -> bool:
        time = self._time(candidate)
        return time > 0 and (self._delay(candidate) < time or self._may_probe(candidate))

    def _may_probe(self, candidate: RouterCandidate) -> bool:
        """Whether a breaker alone is in the way, and this call may see if the model is back. Behind a `_delay`."""
        return self._guard(candidate).probing_helps and not self._question.fail_fast

    def _time(self, candidate: RouterCandidate) -> float:
        """Seconds until its clock runs out."""
        return self._question.start + candidate.total - self._now()

    def _note_error(self, candidate: RouterCandidate, error: AgentlabError) -> AgentlabError:
        self._note(candidate, error)
        return error

    def _guard(self, candidate: RouterCandidate) -> ModelGuard:
        return self._services.guards[candidate.name]

    def _delay(self, candidate: RouterCandidate) -> float:
        return self._guard(candidate).delay(self._now(), self.tokens)


def _patience(wait: float) -> RateLimitedError:
    return RateLimitedError(f"The model is rate limited; retry in {wait:.0f} s.", retry_after=wait)
