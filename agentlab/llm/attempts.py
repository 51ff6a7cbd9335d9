"""The router's only attempt loop: one question on its way through the candidates until one of them answers usefully.

Requests are always streamed. Until the caller has seen a piece of an answer, nothing has left the router, so a stream
that breaks starts again elsewhere unseen; after that, an error is the caller's to see.
"""

import asyncio
import logging
import time
from dataclasses import replace
from functools import partial

from agentlab import errors
from agentlab.errors import AgentlabError, LLMTruncatedError, RateLimitedError
from agentlab.llm import policy, structured
from agentlab.llm.admission import Admission, after_overflow
from agentlab.llm.budget import estimate, priced_usage
from agentlab.llm.guard import Ticket
from agentlab.llm.ledger.arm import CachedAnswer
from agentlab.llm.question import RouterCandidate, RouterOutcome, RouterQuestion, RouterServices, Sink
from agentlab.llm.stream_assembly import ModelReply
from agentlab.llm.structured import Rejected, SchemaMode
from agentlab.llm.types import Attempt, Delta, Message, Timing, ToolCall, Usage

LOG = logging.getLogger("agentlab.llm")
_USAGE_SECONDS = 1.5  # more than a provider waits for it
_LONGEST_MESSAGE = 500


class AttemptLoop:
    """Asks one question. Used once."""

    def __init__(
        self,
        question: RouterQuestion,
        services: RouterServices,
        sink: Sink | None = None,
        before: tuple[Attempt, ...] = (),
    ) -> None:
        """`sink` hears the answer while it comes; from its first piece on the answer cannot be another model's.

        `before` are attempts at the same question that went before.
        """
        self._question = question
        self._services = services
        self._listener = None if sink is None else Listener(sink, question)
        self._attempts = list(before)
        self._tries: dict[str, int] = {}
        self._crowded = 0  # how often a host had no place
        self._hint: str | None = None  # the remedy of the first error
        self._now = asyncio.get_running_loop().time
        self._admission = Admission(question, services, lambda candidate, error: self._note(candidate, Usage(), error))
        self.begun = asyncio.Event()  # some answer has begun

    @property
    def _is_committed(self) -> bool:
        return self._listener is not None and self._listener.shown

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        return tuple(self._attempts)

    async def run(self) -> RouterOutcome:
        """Try the candidates in order. Errors of models and budget come back in the outcome; cancellation is raised."""
        self._services.retry_budget.deposit()
        pending = list(self._question.candidates)
        while pending:
            candidate = self._admission.next(pending)
            if candidate is None:
                break
            pending.remove(candidate)
            try:
                return self._cached_outcome(candidate) or await self._ask(candidate)
            except errors.LLMCancelledError:
                raise
            except errors.BudgetExceededError as error:
                return RouterOutcome(self.attempts, error=error)
            except AgentlabError as error:
                rule = policy.rule_for(error)
                if self._is_committed or not rule.move_on:
                    return RouterOutcome(self.attempts, error=self._scrub_error(error))
                if isinstance(error, errors.ContextOverflowError):
                    pending = after_overflow(pending, candidate.context, self._admission.tokens)
                if isinstance(error, RateLimitedError) and self._tries.get(candidate.name, 0) <= self._services.retries:
                    pending.append(candidate)  # its guard knows for how long; the others are asked first
        return RouterOutcome(self.attempts, error=self._nobody_answered())

    def _cached_outcome(self, candidate: RouterCandidate) -> RouterOutcome | None:
        if not self._question.cached:
            return None
        answer = self._services.cache.find_answer(self._question, candidate)
        if answer is None:
            return None
        value = self._value(answer.text, answer.finish, answer.tool_calls)
        if isinstance(value, Rejected):
            return None
        self._note(candidate, Usage(0, 0, 0.0), None)
        calls, finish = answer.tool_calls, answer.finish
        outcome = RouterOutcome(self.attempts, candidate.name, answer.text, value, None, calls, finish, cached=True)
        if self._listener is not None:
            self._listener.hear(candidate.name, outcome.delta)
        return outcome

    async def _ask(self, candidate: RouterCandidate) -> RouterOutcome:
        """Ask one model: again after passing errors, and once more after an answer that its schema rejects."""
        question, services = self._question, self._services
        messages, asked_again = question.request.messages, False
        rungs = structured.rungs(question.request, candidate.caps) if question.request.schema else ("schema",)
        step = min(services.rungs.get(candidate.name, 0), len(rungs) - 1)
        while True:
            rung = rungs[step]
            try:
                reply = await self._attempt(candidate, messages, rung)
            except errors.BadRequestError:
                if self._is_committed or rung == rungs[-1]:
                    raise
                step += 1  # perhaps it does not know this way of asking
                continue
            except AgentlabError as error:
                if not await self._wait_to_retry(candidate, error):
                    raise
                continue
            if question.request.schema:
                services.rungs[candidate.name] = step
            text, calls = structured.answer_of(rung, reply.text, reply.tool_calls)
            value = self._value(text, reply.finish, calls)
            if not isinstance(value, Rejected):
                called = rung == "tool" or reply.finish == "tool_calls"
                finish = "stop" if called and not calls else reply.finish or "stop"
                outcome = RouterOutcome((), candidate.name, text, value, None, calls, finish)
                return self._settle_outcome(candidate, reply, outcome)
            rejection = errors.SchemaError(f"The answer was rejected: {'; '.join(value.problems)}.")
            self._note(candidate, reply.usage, rejection, reply.assumed_usd)
            services.observe.quality(question.task, candidate.name, 0.0)
            if asked_again or self._is_committed:
                raise rejection
            messages, asked_again = question.request.messages + structured.ask_again(text, value), True

    def _settle_outcome(self, candidate: RouterCandidate, reply: ModelReply, outcome: RouterOutcome) -> RouterOutcome:
        question, services = self._question, self._services
        text, calls, finish = outcome.text, outcome.tool_calls, outcome.finish
        timing = _timing(reply, question.start, self._now())
        self._note(candidate, reply.usage, None, reply.assumed_usd)
        if question.value is not None:
            services.observe.quality(question.task, candidate.name, 1.0)
        if question.cached and finish in ("stop", "tool_calls"):
            answer = CachedAnswer(text, calls, finish, candidate.name, reply.usage, timing, time.time())
            services.cache.keep(question, candidate, answer)
        return replace(outcome, attempts=self.attempts, timing=timing)

    def _value(self, text: str, finish: str | None, calls: tuple[ToolCall, ...]) -> object:
        if self._question.value is None or (calls and self._question.request.tools and not text.strip()):
            return text  # a model that calls a tool has not answered yet
        return self._question.value(text, finish == "length")

    async def _wait_to_retry(self, candidate: RouterCandidate, error: AgentlabError) -> bool:
        """Whether the same model is asked again, after a moment. What its host had no place for was no try."""
        services, busy = self._services, isinstance(error, errors.HostBusyError)
        if busy:
            self._tries[candidate.name] -= 1
            self._crowded += 1
        tries = self._crowded if busy else self._tries.get(candidate.name, 0)
        if self._is_committed or not policy.rule_for(error).again:
            return False
        if not 0 < tries <= (policy.BUSY_TRIES if busy else services.retries):
            return False
        wait = policy.backoff(tries, services.random.random())
        if (self._admission.patience_for_place if busy else self._admission.seconds_left) <= wait:
            return False
        if not (busy or services.retry_budget.allows()):
            return False
        await asyncio.sleep(wait)
        return self._admission.ready(candidate)

    async def _attempt(self, candidate: RouterCandidate, messages: tuple[Message, ...], rung: SchemaMode) -> ModelReply:
        """One request. Its cost is reserved before and settled after, whatever happens; a failure is noted."""
        services, original = self._services, self._question.request
        request = structured.shape_request(replace(original, model=candidate.id, messages=messages), rung)
        cost = estimate(candidate.price, messages, request.max_tokens)
        reply = ModelReply()
        if self._listener is not None:
            self._listener.begin()
        error: AgentlabError | None = None
        services.budget.reserve(cost)
        try:
            async with self._admission.of(candidate) as ticket:
                start = self._now()
                self._tries[candidate.name] = self._tries.get(candidate.name, 0) + 1
                try:
                    async with asyncio.timeout_at(self._admission.end) as clock:
                        on_delta = partial(self._hear_delta, candidate, rung, set(), clock)
                        await reply.request_reply(services.client_of(candidate.name), request, self._now, on_delta)
                except TimeoutError:
                    seconds = (clock.when() or 0.0) - self._question.start
                    error = errors.LLMTimeoutError(f"The answer was not complete within {seconds:.3g} seconds.")
                except AgentlabError as failure:
                    error = failure
                except asyncio.CancelledError:
                    error = errors.LLMCancelledError("The caller cancelled the call.")
                    raise
                except Exception as failure:  # noqa: BLE001 - a plug-in's; its text may hold anything, so it stays here
                    LOG.debug("%s failed: %s", candidate.name, services.redactor.scrub(repr(failure)))
                    error = errors.ServerFaultError(f"The provider failed: {type(failure).__name__}.")
                finally:
                    reply.usage = priced_usage(reply.usage, candidate.price)
                    self._learn(candidate, ticket, reply, start, error)
        finally:
            reply.assumed_usd = services.budget.settle(cost, reply.usage, answered=reply.begun is not None)
            if error is not None:
                self._note(candidate, reply.usage, error, reply.assumed_usd)
        if error is not None:
            raise self._final_error(error, reply)
        return reply

    def _final_error(self, error: AgentlabError, reply: ModelReply) -> AgentlabError:
        """After the caller saw a piece, the error says what has been shown: it cannot be taken back."""
        if not self._is_committed or isinstance(error, errors.LLMCancelledError):
            return error
        hint = error.hint or policy.rule_for(error).remedy
        return LLMTruncatedError(f"The answer broke off after {len(reply.text)} characters: {error.message}", hint=hint)

    def _hear_delta(
        self, candidate: RouterCandidate, rung: SchemaMode, own_indexes: set[int], clock: asyncio.Timeout, delta: Delta
    ) -> None:
        if delta.finish is not None:  # the answer is whole, and only its usage may come
            clock.reschedule(max(clock.when() or 0.0, self._now() + _USAGE_SECONDS))
        if not (delta.text or delta.tools or delta.reasoning):
            return
        self.begun.set()
        if self._listener is None:
            return
        before = self._listener.shown
        self._listener.hear(candidate.name, structured.listener_delta(rung, delta, own_indexes))
        if self._listener.shown and not before:  # nobody else can answer any more
            clock.reschedule(self._question.start + candidate.total)

    def _learn(
        self, candidate: RouterCandidate, ticket: Ticket, reply: ModelReply, start: float, error: AgentlabError | None
    ) -> None:
        services, usage, now = self._services, reply.usage, self._now()
        tokens = None if usage.input_tokens is None else usage.input_tokens + (usage.output_tokens or 0)
        guard = services.guards[candidate.name]
        guard.leave(now, ticket, error, tokens)
        services.slots[candidate.provider].limit = guard.provider.concurrency
        kind = error.kind if error else None
        services.observe.attempt(self._question.task, candidate, kind, usage, _timing(reply, start, now))
        if error is not None and policy.rule_for(error).disables:
            reason = self._scrub_error(error)
            services.out_of_use[candidate.name] = reason
            LOG.warning("%s is no longer used: %s", candidate.name, reason.message)

    def _note(
        self, candidate: RouterCandidate, usage: Usage, error: AgentlabError | None, assumed: float | None = None
    ) -> None:
        message = "" if error is None else self._services.redactor.scrub(error.message)[:_LONGEST_MESSAGE]
        if error is not None and not any(attempt.error for attempt in self._attempts):
            self._hint = error.hint
        self._attempts.append(Attempt(candidate.name, error.kind if error else None, message, usage, assumed))

    def _scrub_error(self, error: AgentlabError) -> AgentlabError:
        error.message = self._services.redactor.scrub(error.message)
        error.args = (error.message,)
        error.hint = error.hint or policy.rule_for(error).remedy
        return error

    def _nobody_answered(self) -> AgentlabError:
        failed = [attempt for attempt in self._attempts if attempt.error]
        return policy.verdict(self._question.task, failed, self._hint, self._admission.patience())


def _timing(reply: ModelReply, start: float, now: float) -> Timing:
    return Timing(None if reply.begun is None else reply.begun - start, now - start)


class Listener:
    """Who hears an answer while it comes, from the first piece that is more than white space.

    Until a piece was shown, another model may still answer.
    """

    def __init__(self, sink: Sink, question: RouterQuestion) -> None:
        """Only what the question asks for is shown: tool calls, thoughts."""
        self._sink = sink
        self._tools, self._thoughts = question.request.offers_tools, question.thoughts
        self._blank: list[Delta] = []  # pieces of white space, which may be all that comes
        self.shown = False

    def begin(self) -> None:
        """A model begins: forget what another one said unheard."""
        self._blank.clear()

    def hear(self, model: str, delta: Delta) -> None:
        """Show a piece of the model's answer, unless it holds nothing for the caller."""
        if delta.tools and not self._tools:
            delta = replace(delta, tools=())
        if delta.reasoning and not self._thoughts:
            delta = replace(delta, reasoning="")
        if not (delta.text or delta.tools or delta.reasoning):
            return
        if not (self.shown or delta.text.strip() or delta.tools or delta.reasoning):
            self._blank.append(delta)
            return
        self.shown = True
        for piece in (*self._blank, delta):
            self._sink(model, piece)
        self._blank.clear()
