"""Vectors of texts: the models that make them are asked one after another, within the same guards and budget."""

import asyncio
from collections.abc import Sequence

from agentlab.errors import (
    AgentlabError,
    AllModelsFailedError,
    BadRequestError,
    LLMCancelledError,
    LLMTimeoutError,
    RateLimitedError,
    UnknownNameError,
)
from agentlab.llm import policy
from agentlab.llm.budget import estimate, priced, tokens_of
from agentlab.llm.config import LLMConfig
from agentlab.llm.question import Candidate, Means, candidate_of
from agentlab.llm.types import Embeddings, Message, Timing, Usage

MOST_TEXTS = 2048


async def embed(
    config: LLMConfig, means: Means, names: Sequence[str], task: str, texts: Sequence[str]
) -> tuple[str, Embeddings]:
    """Name of the model that answered, and the vectors. No model is asked twice.

    Raises:
        UnknownNameError: a name is none of the config.
        BadRequestError: no text, too many, or none of the models makes vectors.
        BudgetExceededError: it would cost too much.
        AllModelsFailedError: none answered.
    """
    if not 0 < len(texts) <= MOST_TEXTS:
        raise BadRequestError(f"There are {len(texts)} texts to embed; 1 to {MOST_TEXTS} can be.")
    unknown = next((name for name in names if name not in config.models), None)
    if unknown is not None:
        raise UnknownNameError("model", unknown, list(config.models))
    able = [candidate_of(config, name) for name in names if "embeddings" in config.caps(name)]
    if not able:
        raise BadRequestError("None of the models makes embeddings.", hint="Name one that does, and its `caps`.")
    failures: list[str] = []
    for candidate in able:
        try:
            return candidate.name, await _one(means, candidate, task, texts)
        except AgentlabError as error:
            if not policy.rule_for(error).move_on:
                raise
            failures.append(f"{candidate.name}: {error.kind}: {means.redactor.scrub(error.message)}")
    raise AllModelsFailedError(f"No model embedded the texts; the last said: {failures[-1]}", failures=failures)


async def _one(means: Means, candidate: Candidate, task: str, texts: Sequence[str]) -> Embeddings:
    clock, guard, slots = asyncio.get_running_loop().time, means.guards[candidate.name], means.slots[candidate.provider]
    messages = [Message("user", text) for text in texts]
    cost, tokens = estimate(candidate.price, messages, 0), tokens_of(messages)
    means.budget.reserve(cost)
    usage, error, taken = Usage(), None, False
    try:
        async with asyncio.timeout(candidate.total):
            while (wait := guard.delay(clock(), tokens)) > 0 and not guard.probing_helps:
                if wait > policy.LONGEST_WAIT:
                    raise RateLimitedError(f"It is to be left alone for {wait:.0f} seconds.", retry_after=wait)
                await asyncio.sleep(wait)
            await slots.take()
            taken, start = True, clock()
            ticket = guard.enter(start, tokens)
            model = means.embedder(candidate.name)
            try:
                answer = await model.embed(candidate.id, texts)
                usage = priced(Usage(answer.usage.input_tokens, 0, answer.usage.cost_usd), candidate.price)
                return Embeddings(answer.vectors, usage)
            except AgentlabError as failure:
                error = failure
                raise
            except asyncio.CancelledError:
                error = LLMCancelledError("The caller gave up.")
                raise
            finally:
                guard.leave(clock(), ticket, error, usage.input_tokens)
                timing = Timing(None, clock() - start)
                means.observe.attempt(task, candidate, error.kind if error else None, usage, timing)
    except TimeoutError:
        raise LLMTimeoutError(f"There were no vectors within {candidate.total:g} seconds.") from None
    finally:
        means.budget.settle(cost, usage, answered=usage.input_tokens is not None)
        if taken:
            slots.free()
