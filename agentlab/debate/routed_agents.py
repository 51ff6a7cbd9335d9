"""Agents that are models of `llm`: hosted, served here with adapters of their own, or local GGUF files."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from agentlab.debate.speakers import TurnReply, TurnRequest
from agentlab.errors import (
    AgentlabError,
    AllModelsFailedError,
    BudgetExceededError,
    ContextOverflowError,
    Interrupted,
    LLMCancelledError,
    SchemaError,
)
from agentlab.llm.concurrency import all_of
from agentlab.llm.options import Options
from agentlab.llm.router import Router
from agentlab.runs.stop import StopFlag

_AT_ONCE = 64  # questions; what a provider allows is its `limits`
_LETTER = 16  # tokens that a hosted judge has for a letter


class RoutedSpeakers:
    """See `Speakers`. Every answer is an event of the run, so a wave that is run again hears what it heard before."""

    def __init__(self, router: Router, models: Mapping[str, str], stop: StopFlag) -> None:
        """`models` names each agent's model in the router's config."""
        self._router, self._models, self._stop = router, models, stop

    def answer(self, requests: Sequence[TurnRequest]) -> list[TurnReply]:
        """A model that fails, or is silent for too long, harms its own turn alone.

        Raises:
            BudgetExceededError: a model was not asked, because it may cost too much.
            Interrupted: a stop was requested.
        """
        calls = [partial(self._answer_request, request) for request in requests]
        return asyncio.run(all_of(calls, _AT_ONCE, self._stop))

    async def _answer_request(self, request: TurnRequest) -> TurnReply:
        options = Options(
            model=self._models[request.agent],
            strategy="single",
            temperature=request.temperature,
            max_tokens=max(request.max_tokens, _LETTER),
            seed=request.seed,
            json_schema=request.schema,
            cache=False,
            fail_fast=True,  # nothing can take over for the agent, and the others of its wave wait for it
        )
        try:
            reply = await self._router.complete(request.messages, "debate.turn", call_id=request.id, options=options)
        except (BudgetExceededError, Interrupted, LLMCancelledError):
            raise
        except AgentlabError as error:
            lines = error.failures if isinstance(error, AllModelsFailedError) else (error.kind,)
            overflow = any(ContextOverflowError.__name__ in line for line in lines)
            formless = any(SchemaError.__name__ in line for line in lines)
            reason = f"{error.kind}: {error.message}"[:1000]
            return TurnReply(error=reason, overflow=overflow, formless=formless and request.schema is not None)
        usage = reply.usage
        return TurnReply(reply.text, input_tokens=usage.input_tokens or 0, output_tokens=usage.output_tokens or 0)

    def forget(self) -> None:
        """Every question holds its whole chat."""
