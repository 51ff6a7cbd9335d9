"""A question put to a model of the router, whose text is passed on while it comes."""

import asyncio
from typing import TYPE_CHECKING, Any

from agentlab.pipeline.answer import Answer
from agentlab.pipeline.call import Call, Tell
from agentlab.pipeline.config import PipelineConfig
from agentlab.runs.stop import StopFlag

if TYPE_CHECKING:
    from agentlab.llm.options import Options
    from agentlab.llm.router import Router
    from agentlab.llm.types import Completion, Message

TASK = "pipeline"
_POLL_SECONDS = 0.1


def ask(router: "Router", config: PipelineConfig, call: Call, model: str, *, stop: StopFlag, tell: Tell) -> Answer:
    """The answer, as the router gives it. May be called from any thread.

    Raises:
        AgentlabError: see `Router.complete`.
        Interrupted: a stop was requested.
    """
    from agentlab.llm.options import Options
    from agentlab.llm.types import Message

    drawing = call.drawings[model]
    options = Options(
        model=config.models[model].model,
        temperature=drawing.temperature,
        max_tokens=drawing.max_tokens,
        seed=call.seed,
        top_p=drawing.top_p,
        stop=call.stop,
        json_schema=call.schema,
        seconds=drawing.seconds,
    )
    messages = [Message(role, content) for role, content in call.prompt(1.0)]  # type: ignore[arg-type] # system, user
    if call.schema is not None:  # what has to be checked is not heard before it was
        said: Completion[Any] = router.complete_sync(messages, TASK, call_id=call.id, options=options)
        tell(said.text)
    else:
        said = asyncio.run(_heard(router, messages, options, stop, tell))
    first = said.timing.first if said.timing else None
    return Answer(
        text=said.text,
        finish=said.finish,
        model=model,
        prompt_tokens=said.usage.input_tokens,
        completion_tokens=said.usage.output_tokens,
        prefill_seconds=first,
        decode_seconds=said.timing.total - (first or 0.0) if said.timing else None,
        cost_usd=said.usage.cost_usd,
    )


async def _heard(
    router: "Router", messages: "list[Message]", options: "Options", stop: StopFlag, tell: Tell
) -> "Completion[str]":
    live = router.stream(messages, TASK, options=options)

    async def listen() -> None:
        async for delta in live:
            if delta.text:
                tell(delta.text)

    listening = asyncio.ensure_future(listen())
    try:
        while not (await asyncio.wait({listening}, timeout=_POLL_SECONDS))[0]:
            stop.check()
        await listening
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    return live.completion
