"""The only attempt loop: one question on its way through the candidates until one of them answers usefully."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic

from agentlab.errors import (
    AgentlabError,
    AllModelsFailedError,
    BudgetExceededError,
    ContextOverflowError,
    LLMCancelledError,
    LLMTimeoutError,
    LLMTruncatedError,
    MalformedReplyError,
    SchemaError,
)
from agentlab.llm import policy, structured
from agentlab.llm.budget import Budget, estimate, priced
from agentlab.llm.config import Price
from agentlab.llm.structured import M, Rejected
from agentlab.llm.types import Attempt, ChatModel, Message, Request, Usage
from agentlab.runs.redact import Redactor

LONGEST_ANSWER = 262_144  # characters; whatever is used is recorded whole, so it has to be bounded
_LONGEST_MESSAGE = 500


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be asked. `total` is in seconds from the start of the call."""

    name: str
    id: str
    context: int | None
    price: Price | None
    total: float


@dataclass(frozen=True, slots=True)
class Question(Generic[M]):
    """What is asked, and of whom."""

    task: str
    messages: tuple[Message, ...]
    model: type[M] | None  # the answer's type; None for plain text
    schema: Mapping[str, Any] | None
    temperature: float
    max_tokens: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Means:
    """What the loop works with."""

    connect: Callable[[str], ChatModel]  # by the candidate's name
    budget: Budget
    redactor: Redactor
    retries: int
    random: random.Random  # spreads waiting times; never enters an answer


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer (`error` is None), or the error, and what it took."""

    attempts: tuple[Attempt, ...]
    model: str = ""
    text: str = ""
    value: Any = None
    error: AgentlabError | None = None

    @property
    def usage(self) -> Usage:
        """Sum over all attempts."""
        return sum((attempt.usage for attempt in self.attempts), Usage())


@dataclass(slots=True)
class _Reply:
    """What came in so far: it is counted even if the stream breaks."""

    text: str = ""
    finish: str | None = None
    usage: Usage = Usage()  # noqa: RUF009 - frozen


class AttemptLoop(Generic[M]):
    """Asks one question. Used once."""

    def __init__(self, question: Question[M], means: Means) -> None:
        self._question = question
        self._means = means
        self._attempts: list[Attempt] = []
        self._hint: str | None = None
        self._start = asyncio.get_running_loop().time()

    async def run(self) -> Outcome:
        """Try the candidates in order. Errors of models and budget come back in the outcome; cancellation is raised."""
        overflowed: int | None = None
        candidates = self._question.candidates
        for index, candidate in enumerate(candidates):
            if not policy.may_hold(candidate.context, overflowed):
                continue
            try:
                return await self._ask(candidate, last=index == len(candidates) - 1)
            except LLMCancelledError:
                raise
            except BudgetExceededError as error:
                return Outcome(tuple(self._attempts), error=error)
            except AgentlabError as error:
                if not policy.rule_for(error).move_on:
                    return Outcome(tuple(self._attempts), error=self._scrubbed(error))
                if isinstance(error, ContextOverflowError):
                    overflowed = candidate.context
        return Outcome(tuple(self._attempts), error=self._all_failed())

    async def _ask(self, candidate: Candidate, *, last: bool) -> Outcome:
        """Ask one model: again after passing errors, and once more after an answer that its schema rejects."""
        messages, tries, asked_again = self._question.messages, 0, False
        while True:
            try:
                reply = await self._attempt(candidate, messages)
            except AgentlabError as error:
                tries += 1
                wait = policy.wait_before_retry(
                    error, tries=tries, retries=self._means.retries, last=last, chance=self._means.random.random()
                )
                if wait is None or self._left(candidate) <= wait:
                    raise
                await asyncio.sleep(wait)
                continue
            value = self._value(reply)
            if not isinstance(value, Rejected):
                self._note(candidate, reply.usage, None)
                return Outcome(tuple(self._attempts), candidate.name, reply.text, value)
            rejection = SchemaError(f"The answer was rejected: {'; '.join(value.problems)}.")
            self._note(candidate, reply.usage, rejection)
            if asked_again:
                raise rejection
            messages, asked_again = self._question.messages + structured.ask_again(reply.text, value), True

    def _value(self, reply: _Reply) -> Any:
        model = self._question.model
        return reply.text if model is None else structured.parse(reply.text, model, cut=reply.finish == "length")

    async def _attempt(self, candidate: Candidate, messages: tuple[Message, ...]) -> _Reply:
        """One request. Its cost is reserved before and settled after, whatever happens; a failure is noted."""
        question, budget = self._question, self._means.budget
        cost = estimate(candidate.price, messages, question.max_tokens)
        budget.reserve(cost)
        reply = _Reply()
        try:
            await self._receive(candidate, messages, reply)
        except AgentlabError as error:
            self._note(candidate, priced(reply.usage, candidate.price), error)
            raise
        finally:
            reply.usage = priced(reply.usage, candidate.price)
            budget.settle(cost, reply.usage, answered=bool(reply.text))
        return reply

    async def _receive(self, candidate: Candidate, messages: tuple[Message, ...], reply: _Reply) -> None:
        """Read one whole answer; the clock of the whole call runs on through retries and other candidates."""
        question = self._question
        request = Request(candidate.id, messages, question.schema, question.temperature, question.max_tokens)
        try:
            async with asyncio.timeout_at(self._start + candidate.total):
                await _collect(self._means.connect(candidate.name), request, reply)
        except TimeoutError:
            raise LLMTimeoutError(f"There was no whole answer within {candidate.total:g} seconds.") from None
        if reply.finish is None:
            raise LLMTruncatedError("The answer broke off before its end.")
        if not reply.text.strip():
            raise MalformedReplyError("The answer is empty.")
        # half a surrogate pair is legal in JSON, but can be neither written nor sent on
        reply.text = self._means.redactor.scrub(reply.text.encode(errors="replace").decode())

    def _left(self, candidate: Candidate) -> float:
        return self._start + candidate.total - asyncio.get_running_loop().time()

    def _note(self, candidate: Candidate, usage: Usage, error: AgentlabError | None) -> None:
        message = ""
        if error is not None:
            message, self._hint = self._means.redactor.scrub(error.message)[:_LONGEST_MESSAGE], error.hint or self._hint
        self._attempts.append(Attempt(candidate.name, error.kind if error else None, message, usage))

    def _scrubbed(self, error: AgentlabError) -> AgentlabError:
        error.message = self._means.redactor.scrub(error.message)
        error.args = (error.message,)
        return error

    def _all_failed(self) -> AllModelsFailedError:
        lines = tuple(f"{attempt.model}: {attempt.error}: {attempt.message}" for attempt in self._attempts)
        return AllModelsFailedError(
            f"No language model answered {self._question.task}; the last said: {lines[-1]}",
            failures=lines,
            hint=self._hint or "Check the endpoint and model of `llm:`, or work without with --set llm=none.",
        )


async def _collect(model: ChatModel, request: Request, reply: _Reply) -> None:
    parts: list[str] = []
    length = 0
    stream = model.stream(request)
    try:
        async for delta in stream:
            parts.append(delta.text)
            length += len(delta.text)
            reply.finish = delta.finish or reply.finish
            reply.usage = delta.usage or reply.usage
            if length > LONGEST_ANSWER:
                raise MalformedReplyError(f"The answer is longer than {LONGEST_ANSWER} characters.")
    finally:
        reply.text = "".join(parts)
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()
