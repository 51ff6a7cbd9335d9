"""The only attempt loop: one question on its way through the candidates until one of them answers usefully.

Requests are always streamed. Until the caller has seen a piece of an answer, nothing has left the router, so a stream
that breaks starts again elsewhere unseen; after that, an error is the caller's to see.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from agentlab.errors import (
    AgentlabError,
    AllModelsFailedError,
    AuthError,
    BadRequestError,
    BudgetExceededError,
    ContextOverflowError,
    LLMCancelledError,
    LLMTimeoutError,
    LLMTruncatedError,
    RateLimitedError,
    SchemaError,
)
from agentlab.llm import ladder, policy, structured
from agentlab.llm.budget import estimate, priced, tokens_of
from agentlab.llm.guard import Ticket
from agentlab.llm.ladder import Rung
from agentlab.llm.ledger.sample import CachedAnswer
from agentlab.llm.question import Candidate, Means, Outcome, Question, Sink
from agentlab.llm.reply import Reply
from agentlab.llm.structured import Rejected
from agentlab.llm.types import Attempt, Delta, Message, Timing, ToolCall, Usage

_LONGEST_MESSAGE = 500


class AttemptLoop:
    """Asks one question. Used once."""

    def __init__(self, question: Question, means: Means, sink: Sink | None = None) -> None:
        """`sink` hears the answer while it comes; from its first piece on the answer cannot be another model's."""
        self._question = question
        self._means = means
        self._sink = sink
        self._attempts: list[Attempt] = []
        self._tries: dict[str, int] = {}
        self._hint: str | None = None
        self._committed = False
        self._now = asyncio.get_running_loop().time
        self._tokens = tokens_of(question.request.messages) + question.request.max_tokens
        self.begun = asyncio.Event()  # some answer has begun

    async def run(self) -> Outcome:
        """Try the candidates in order. Errors of models and budget come back in the outcome; cancellation is raised."""
        self._means.retry_budget.deposit()
        overflowed: int | None = None
        pending = list(self._question.candidates)
        while pending:
            candidate = self._next(pending)
            if candidate is None:
                break
            pending.remove(candidate)
            if not policy.may_hold(candidate.context, overflowed):
                continue
            try:
                return self._known(candidate) or await self._ask(candidate)
            except LLMCancelledError:
                raise
            except BudgetExceededError as error:
                return Outcome(tuple(self._attempts), error=error)
            except AgentlabError as error:
                rule = policy.rule_for(error)
                if self._committed or not rule.move_on:
                    return Outcome(tuple(self._attempts), error=self._scrubbed(error))
                if isinstance(error, ContextOverflowError):
                    overflowed = candidate.context
                if isinstance(error, RateLimitedError) and self._tries.get(candidate.name, 0) <= self._means.retries:
                    pending.append(candidate)  # its guard knows for how long; the others are asked first
        return Outcome(tuple(self._attempts), error=self._all_failed())

    def _next(self, pending: list[Candidate]) -> Candidate | None:
        """The first that may be asked now; else one whose breaker wants a probe; else the one due soonest, if in time.

        Whoever is passed over for good leaves a line.
        """
        now, tokens = self._now(), self._tokens
        soonest, least = None, math.inf
        for candidate in tuple(pending):
            guard = self._means.guards[candidate.name]
            delay = guard.delay(now, tokens)
            if delay <= 0:
                return candidate
            if delay == math.inf:
                pending.remove(candidate)
                reason = self._means.out_of_use.get(candidate.name, "It is out of use.")
                self._attempts.append(Attempt(candidate.name, AuthError.__name__, f"Not asked again: {reason}"))
            elif (wait := 0.0 if guard.probing_helps else delay) < least:
                soonest, least = candidate, wait
        if soonest is not None and least > min(policy.LONGEST_WAIT, self._left(soonest)):
            for candidate in pending:
                self._note(candidate, Usage(), RateLimitedError(f"It is to be left alone for {least:.0f} seconds."))
            return None
        return soonest

    def _known(self, candidate: Candidate) -> Outcome | None:
        """The answer of the response cache, if one may be used and still fits."""
        if not self._question.cached:
            return None
        answer = self._means.cache.known(self._question, candidate)
        if answer is None:
            return None
        value = self._value(answer.text, answer.finish, answer.tool_calls)
        if isinstance(value, Rejected):
            return None
        if self._sink is not None:
            self._sink(candidate.name, Delta(text=answer.text))
        attempts = (*self._attempts, Attempt(candidate.name, None, usage=Usage(0, 0, 0.0)))
        return Outcome(
            attempts, candidate.name, answer.text, value, None, answer.tool_calls, answer.finish, None, cached=True
        )

    async def _ask(self, candidate: Candidate) -> Outcome:
        """Ask one model: again after passing errors, and once more after an answer that its schema rejects."""
        question, means = self._question, self._means
        messages, asked_again = question.request.messages, False
        rungs = ladder.rungs(question.request, candidate.caps) if question.request.schema else ("schema",)
        while True:
            rung = rungs[min(means.rungs.get(candidate.name, 0), len(rungs) - 1)]
            try:
                reply = await self._attempt(candidate, messages, rung)
            except BadRequestError:
                if question.request.schema is None or rung == rungs[-1]:
                    raise
                means.rungs[candidate.name] = rungs.index(rung) + 1  # it does not know this way of asking
                continue
            except AgentlabError as error:
                if not await self._again(candidate, error):
                    raise
                continue
            text, calls = ladder.answer_of(rung, means.redactor.scrub(reply.text), reply.tool_calls)
            value = self._value(text, reply.finish, calls)
            if not isinstance(value, Rejected):
                return self._answered(candidate, reply, text, calls, value)
            rejection = SchemaError(f"The answer was rejected: {'; '.join(value.problems)}.")
            self._note(candidate, reply.usage, rejection)
            means.observe.quality(question.task, candidate.name, 0.0)
            if asked_again or self._committed:
                raise rejection
            messages, asked_again = question.request.messages + structured.ask_again(text, value), True

    def _answered(
        self, candidate: Candidate, reply: Reply, text: str, calls: tuple[ToolCall, ...], value: object
    ) -> Outcome:
        question, means, finish = self._question, self._means, reply.finish or "stop"
        timing = _timing(reply, question.start, self._now())
        self._note(candidate, reply.usage, None)
        if question.value is not None:
            means.observe.quality(question.task, candidate.name, 1.0)
        if question.cached and finish in ("stop", "tool_calls"):
            answer = CachedAnswer(text, calls, finish, candidate.name, reply.usage, timing, time.time())
            means.cache.keep(question, candidate, answer)
        return Outcome(tuple(self._attempts), candidate.name, text, value, None, calls, finish, timing)

    def _value(self, text: str, finish: str | None, calls: tuple[ToolCall, ...]) -> object:
        if self._question.value is None or (calls and not text.strip()):
            return text  # a model that calls a tool has not answered yet
        return self._question.value(text, finish == "length")

    async def _again(self, candidate: Candidate, error: AgentlabError) -> bool:
        """Whether the same model is asked again, after a moment."""
        means, tries = self._means, self._tries.get(candidate.name, 0)
        if self._committed or not policy.rule_for(error).again or not 0 < tries <= means.retries:
            return False
        wait = policy.backoff(tries, means.random.random())
        if self._left(candidate) <= wait:
            return False
        if not means.retry_budget.allows():
            return False
        await asyncio.sleep(wait)
        return means.guards[candidate.name].delay(self._now(), self._tokens) <= 0

    async def _attempt(self, candidate: Candidate, messages: tuple[Message, ...], rung: Rung) -> Reply:
        """One request. Its cost is reserved before and settled after, whatever happens; a failure is noted."""
        means, asked = self._means, self._question.request
        request = ladder.shaped(replace(asked, model=candidate.id, messages=messages), rung)
        cost = estimate(candidate.price, messages, request.max_tokens)
        reply = Reply()
        error: AgentlabError | None = None
        means.budget.reserve(cost)
        try:
            async with self._turn(candidate) as ticket:
                start = self._now()
                self._tries[candidate.name] = self._tries.get(candidate.name, 0) + 1
                try:
                    async with asyncio.timeout_at(self._question.start + candidate.total):
                        heard = partial(self._heard, candidate.name)
                        await reply.receive(means.connect(candidate.name), request, self._now, heard)
                except TimeoutError:
                    error = LLMTimeoutError(f"There was no whole answer within {candidate.total:g} seconds.")
                except AgentlabError as failure:
                    error = failure
                except asyncio.CancelledError:
                    error = LLMCancelledError("The caller gave up.")
                    raise
                finally:
                    reply.usage = priced(reply.usage, candidate.price)
                    self._learn(candidate, ticket, reply, start, error)
        finally:
            means.budget.settle(cost, reply.usage, answered=not reply.empty)
        if error is not None:
            self._note(candidate, reply.usage, error)
            raise self._ended(error, reply)
        return reply

    def _ended(self, error: AgentlabError, reply: Reply) -> AgentlabError:
        """After the caller saw a piece, the error says what has been shown: it cannot be taken back."""
        if not self._committed or isinstance(error, LLMCancelledError):
            return error
        return LLMTruncatedError(
            f"The answer broke off after {len(reply.text)} characters: {error.message}", hint=error.hint
        )

    def _heard(self, model: str, delta: Delta) -> None:
        if not self.begun.is_set():
            self.begun.set()
        if self._sink is not None:
            self._committed = True
            self._sink(model, delta)

    def _learn(
        self, candidate: Candidate, ticket: Ticket, reply: Reply, start: float, error: AgentlabError | None
    ) -> None:
        means, usage, now = self._means, reply.usage, self._now()
        tokens = None if usage.input_tokens is None else usage.input_tokens + (usage.output_tokens or 0)
        guard = means.guards[candidate.name]
        guard.leave(now, ticket, error, tokens)
        means.slots[candidate.provider].limit = guard.provider.concurrency
        kind = error.kind if error else None
        means.observe.attempt(self._question.task, candidate, kind, usage, _timing(reply, start, now))
        if error is not None and policy.rule_for(error).disables:
            means.out_of_use[candidate.name] = means.redactor.scrub(error.message)[:_LONGEST_MESSAGE]

    @asynccontextmanager
    async def _turn(self, candidate: Candidate) -> AsyncIterator[Ticket]:
        """Wait until the model may be asked: its cool-down, its provider's limits, a free place."""
        guard, slots, tokens = self._means.guards[candidate.name], self._means.slots[candidate.provider], self._tokens
        while True:
            await self._until_ready(candidate)
            try:
                async with asyncio.timeout_at(self._question.start + candidate.total):
                    await slots.take()
            except TimeoutError:
                error = LLMTimeoutError(f"No place became free within {candidate.total:g} seconds.")
                self._note(candidate, Usage(), error)
                raise error from None
            try:
                if guard.delay(self._now(), tokens) <= 0 or guard.probing_helps:
                    yield guard.enter(self._now(), tokens)
                    return
            finally:
                slots.free()

    async def _until_ready(self, candidate: Candidate) -> None:
        guard = self._means.guards[candidate.name]
        while (wait := guard.delay(self._now(), self._tokens)) > 0 and not guard.probing_helps:
            if wait > min(policy.LONGEST_WAIT, self._left(candidate)):
                error = RateLimitedError(f"It is to be left alone for {wait:.0f} seconds.", retry_after=wait)
                self._note(candidate, Usage(), error)
                raise error
            await asyncio.sleep(wait)

    def _left(self, candidate: Candidate) -> float:
        return self._question.start + candidate.total - self._now()

    def _note(self, candidate: Candidate, usage: Usage, error: AgentlabError | None) -> None:
        message = ""
        if error is not None:
            message, self._hint = self._means.redactor.scrub(error.message)[:_LONGEST_MESSAGE], error.hint or self._hint
        self._attempts.append(Attempt(candidate.name, error.kind if error else None, message, usage))

    def _scrubbed(self, error: AgentlabError) -> AgentlabError:
        error.message = self._means.redactor.scrub(error.message)
        error.args = (error.message,)
        return error

    def _patience(self) -> float | None:
        """Seconds until the first candidate may be asked, when all of them asked to be left alone."""
        waits, now = [], self._now()
        for candidate in self._question.candidates:
            guard = self._means.guards[candidate.name]
            waits.append(guard.delay(now, self._tokens))
            if waits[-1] <= 0 or guard.probing_helps:
                return None
        wait = min(waits, default=math.inf)
        return wait if wait < math.inf else None

    def _all_failed(self) -> AllModelsFailedError:
        lines = tuple(f"{attempt.model}: {attempt.error}: {attempt.message}" for attempt in self._attempts)
        last = lines[-1] if lines else "none can take the request"
        return AllModelsFailedError(
            f"No language model answered {self._question.task}; the last said: {last}",
            failures=lines,
            hint=self._hint or "`agentlab llm show` says who is asked, `agentlab llm-bench check` who answers.",
            retry_after=self._patience(),
        )


def _timing(reply: Reply, start: float, now: float) -> Timing:
    return Timing(None if reply.begun is None else reply.begun - start, now - start)
