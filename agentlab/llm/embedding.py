"""Vectors of texts: the models that make them are asked one after another, within the same guards and budget."""

import asyncio
from collections.abc import Sequence

from agentlab import errors
from agentlab.errors import AgentlabError
from agentlab.llm import policy
from agentlab.llm.admission import Admission
from agentlab.llm.budget import estimate, priced_usage
from agentlab.llm.config import LLMConfig
from agentlab.llm.question import RouterCandidate, RouterQuestion, RouterServices, candidate_of
from agentlab.llm.types import Attempt, Embeddings, Message, ModelRequest, Timing, Usage

MOST_TEXTS = 2048


async def embed(
    config: LLMConfig, services: RouterServices, names: Sequence[str], task: str, texts: Sequence[str]
) -> tuple[str, Embeddings]:
    """Name of the model that answered, and the vectors. No model is asked twice, and one clock runs for all of them.

    Raises:
        UnknownNameError: a name is not in the config.
        BadRequestError: no text, too many, or none of the models makes vectors.
        BudgetExceededError: it would cost too much.
        AllModelsFailedError, BadRequestError: none answered, or all refused.
    """
    if not 0 < len(texts) <= MOST_TEXTS:
        raise errors.BadRequestError(f"The call has {len(texts)} texts to embed; it must have 1 to {MOST_TEXTS}.")
    unknown = next((name for name in names if name not in config.models), None)
    if unknown is not None:
        raise errors.UnknownNameError("model", unknown, list(config.models))
    able = [candidate_of(config, name) for name in names if "embeddings" in config.caps(name)]
    if not able:
        raise errors.BadRequestError(
            "None of the models supports embeddings.", hint="Add a model that does, with `embeddings` in its `caps`."
        )
    question = RouterQuestion(task, request_of(texts), None, tuple(able), asyncio.get_running_loop().time())
    call = _EmbeddingCall(question, services)
    failed: list[Attempt] = []
    hint: str | None = None
    for position, candidate in enumerate(able):
        try:
            return candidate.name, await call.ask(candidate, able[position + 1 :], texts)
        except AgentlabError as error:
            if not policy.rule_for(error).move_on:
                raise
            hint = hint if failed else error.hint
            failed.append(Attempt(candidate.name, error.kind, services.redactor.scrub(error.message)))
    raise policy.verdict(task, failed, hint)


def request_of(texts: Sequence[str]) -> ModelRequest:
    """The texts as a request, for what looks at requests of every kind."""
    return ModelRequest("", tuple(Message("user", text) for text in texts), max_tokens=0)


class _EmbeddingCall:
    def __init__(self, question: RouterQuestion, services: RouterServices) -> None:
        self._question, self._services = question, services
        self._admission = Admission(question, services, lambda *_: None)
        self._now = asyncio.get_running_loop().time

    async def ask(
        self, candidate: RouterCandidate, later: Sequence[RouterCandidate], texts: Sequence[str]
    ) -> Embeddings:
        """The vectors of one model, in time for those behind it. A host that has no place is asked again."""
        self._admission.begin(candidate, later)
        tries = 0
        while True:
            try:
                return await self._once(candidate, texts)
            except errors.HostBusyError:
                tries += 1
                wait = policy.backoff(tries, self._services.random.random())
                if tries > policy.BUSY_TRIES or self._admission.patience_for_place <= wait:
                    raise
            await asyncio.sleep(wait)

    async def _once(self, candidate: RouterCandidate, texts: Sequence[str]) -> Embeddings:
        """One request. Its cost is reserved before and settled after; unreported, it stays an estimate."""
        services = self._services
        if self._admission.seconds_left <= 0:
            raise errors.LLMTimeoutError("Not asked: the call is out of time.")
        model = services.embedder(candidate.name)
        cost = estimate(candidate.price, self._question.request.messages, 0)
        services.budget.reserve(cost)
        answer: Embeddings | None = None
        error: AgentlabError | None = None
        usage = Usage()
        try:
            async with self._admission.of(candidate) as ticket:
                began = self._now()
                try:
                    async with asyncio.timeout_at(self._admission.end):
                        answer = await model.embed(candidate.id, texts)
                    usage = priced_usage(Usage(answer.usage.input_tokens, 0, answer.usage.cost_usd), candidate.price)
                except asyncio.CancelledError:
                    error = errors.LLMCancelledError("The caller cancelled the call.")
                    raise
                except Exception as failure:  # noqa: BLE001 - a plug-in's bug is the fault of one model
                    error = _explain_failure(failure, self._admission.end - self._question.start)
                finally:
                    services.guards[candidate.name].leave(self._now(), ticket, error, usage.input_tokens)
                    self._learn(candidate, error, usage, Timing(None, self._now() - began))
        finally:
            services.budget.settle(cost, usage, answered=answer is not None)
        if error is not None or answer is None:
            raise error or errors.ServerFaultError("No embeddings arrived.")
        return Embeddings(answer.vectors, usage)

    def _learn(self, candidate: RouterCandidate, error: AgentlabError | None, usage: Usage, timing: Timing) -> None:
        services = self._services
        services.slots[candidate.provider].limit = services.guards[candidate.name].provider.concurrency
        services.observe.attempt(self._question.task, candidate, error.kind if error else None, usage, timing)
        if error is not None and policy.rule_for(error).disables:
            error.message = services.redactor.scrub(error.message)
            services.out_of_use[candidate.name] = error


def _explain_failure(failure: Exception, seconds: float) -> AgentlabError:
    if isinstance(failure, AgentlabError):
        return failure
    if isinstance(failure, TimeoutError):
        return errors.LLMTimeoutError(f"No embeddings arrived within {seconds:.3g} seconds.")
    return errors.ServerFaultError(f"The provider failed: {type(failure).__name__}.")  # its words may hold anything
