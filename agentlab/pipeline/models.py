"""A question put to a local model, or to one of the router, whose text is passed on while it comes."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from agentlab.errors import ContextOverflowError
from agentlab.llm.recorder import RunRecorder
from agentlab.llm.types import Usage
from agentlab.pipeline.answer import PipelineAnswer
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.known_answers import ANSWERED
from agentlab.pipeline.loaded_models import LoadedModels
from agentlab.pipeline.settings import Rung
from agentlab.pipeline.step_questions import Messages, PipelineCall, Tell
from agentlab.runs.stop import StopFlag
from agentlab.workers.chat import Chunk, EngineRequest

if TYPE_CHECKING:
    from agentlab.llm.options import Options
    from agentlab.llm.router import Router
    from agentlab.llm.types import Completion, Message

TASK = "pipeline"
_POLL_SECONDS = 0.1
_TELL_SECONDS = 0.05  # how often text is passed on
_LONGEST_TOKEN = 128  # characters: a prompt longer than this times the context cannot fit, whatever the tokenizer


def ask_local(
    loaded_models: LoadedModels,
    call: PipelineCall,
    model: str,
    rung: Rung,
    *,
    seed: int,
    upcoming: Sequence[str],
    stopped: Callable[[], bool],
    tell: Tell,
) -> PipelineAnswer:
    """The answer, as the engine gives it; raises as `ChatEngine.chat` does."""
    drawing, messages = call.drawings[model], call.prompt(rung.keep)
    _check_length(messages, rung.engine.context)
    engine = loaded_models.engine(model, rung.engine, upcoming=upcoming, cancelled=stopped)
    question = EngineRequest(
        messages=[{"role": role, "content": content} for role, content in messages],
        schema=call.schema,
        max_tokens=rung.max_tokens,
        temperature=drawing.temperature,
        seed=seed,
        seconds=drawing.seconds,
        stop=call.stop,
        top_p=drawing.top_p,
        logprob=call.logprob,
    )
    pieces: list[str] = []
    told_count, told_at, chunk = 0, time.monotonic(), Chunk()
    for chunk in engine.chat(question, cancelled=stopped):
        pieces.append(chunk.text)
        if (now := time.monotonic()) - told_at > _TELL_SECONDS or chunk.finish is not None:
            tell("".join(pieces[told_count:]))
            told_count, told_at = len(pieces), now
    return PipelineAnswer(
        text="".join(pieces),
        finish=chunk.finish or "stop",
        model=model,
        prompt_tokens=chunk.prompt_tokens,
        completion_tokens=chunk.completion_tokens,
        reused_tokens=chunk.reused_tokens,
        prefill_seconds=chunk.prefill_seconds,
        decode_seconds=chunk.decode_seconds,
        logprob=chunk.logprob,
    )


def _check_length(messages: Messages, context: int) -> None:
    """Refuse what cannot fit before the engine takes it apart, which for millions of characters takes its toll."""
    length = sum(len(content) for _, content in messages)
    if length > context * _LONGEST_TOKEN:
        raise ContextOverflowError(
            f"The prompt of {length} characters cannot fit in a context of {context} tokens.",
            hint="Shorten the input, raise n_ctx, or set the stage's `overflow`.",
        )


def ask_remote(
    router: "Router", config: PipelineConfig, call: PipelineCall, model: str, *, stop: StopFlag, tell: Tell
) -> PipelineAnswer:
    """The answer, as the router gives it, in any thread. Raises as `Router.complete` does; Interrupted at a stop."""
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
        completion: Completion[Any] = router.complete_sync(messages, TASK, call_id=call.id, options=options)
        tell(completion.text)
    else:
        completion = asyncio.run(_stream_completion(router, messages, options, stop, tell))
    first = completion.timing.first if completion.timing else None
    return PipelineAnswer(
        text=completion.text,
        finish=completion.finish,
        model=model,
        prompt_tokens=completion.usage.input_tokens,
        completion_tokens=completion.usage.output_tokens,
        prefill_seconds=first,
        decode_seconds=completion.timing.total - (first or 0.0) if completion.timing else None,
        cost_usd=completion.usage.cost_usd,
    )


async def _stream_completion(
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


class Spending(RunRecorder):
    """What a run has spent, for the router. The answers themselves are the pipeline's to keep.

    Nothing is replayed: an endpoint that was down may be back.
    """

    def replay(self, key: str) -> None:
        """Nothing."""

    def record(self, key: str, id: str, data: dict[str, Any]) -> None:  # noqa: A002 - as of `RunRecorder`
        """Nothing: every answer becomes an event with its cost."""

    def total_usage(self) -> Usage:
        """What the run's remote answers have cost so far, those of earlier sessions included."""
        answers = [
            event.data["answer"]
            for event in self._run.events
            if event.type == ANSWERED and event.data["from"] == "model" and event.data["answer"]["cost_usd"] is not None
        ]
        usages = (Usage(answer["prompt_tokens"], answer["completion_tokens"], answer["cost_usd"]) for answer in answers)
        return sum(usages, Usage())
