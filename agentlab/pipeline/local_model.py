"""A question put to a local model, whose text is passed on while it comes."""

import time
from collections.abc import Callable, Sequence

from agentlab.errors import ContextOverflowError
from agentlab.pipeline.answer import Answer
from agentlab.pipeline.call import Call, Messages, Tell
from agentlab.pipeline.ladder import Rung
from agentlab.pipeline.residents import Residents
from agentlab.workers.chat import ChatRequest, Chunk

_TELL_SECONDS = 0.05  # how often text is passed on
_LONGEST_TOKEN = 128  # characters: a prompt longer than this times the context cannot fit, whatever the tokenizer


def ask(
    residents: Residents,
    call: Call,
    model: str,
    rung: Rung,
    *,
    seed: int,
    upcoming: Sequence[str],
    stopped: Callable[[], bool],
    tell: Tell,
) -> Answer:
    """The answer, as the engine gives it.

    Raises:
        AgentlabError: see `ChatEngine.chat`.
    """
    drawing, messages = call.drawings[model], call.prompt(rung.keep)
    _check_length(messages, rung.engine.context)
    engine = residents.engine(model, rung.engine, upcoming=upcoming, cancelled=stopped)
    question = ChatRequest(
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
    said: list[str] = []
    told, then, end = 0, time.monotonic(), Chunk()
    for chunk in engine.chat(question, cancelled=stopped):
        said.append(chunk.text)
        end = chunk
        if (now := time.monotonic()) - then > _TELL_SECONDS or chunk.finish is not None:
            tell("".join(said[told:]))
            told, then = len(said), now
    return Answer(
        text="".join(said),
        finish=end.finish or "stop",
        model=model,
        prompt_tokens=end.prompt_tokens,
        completion_tokens=end.completion_tokens,
        reused_tokens=end.reused_tokens,
        prefill_seconds=end.prefill_seconds,
        decode_seconds=end.decode_seconds,
        logprob=end.logprob,
    )


def _check_length(messages: Messages, context: int) -> None:
    """Refuse what cannot fit before the engine takes it apart, which for millions of characters takes its toll."""
    length = sum(len(content) for _, content in messages)
    if length > context * _LONGEST_TOKEN:
        raise ContextOverflowError(
            f"The prompt has {length} characters, which cannot fit: the context holds {context} tokens.",
            hint="Shorten the input, raise n_ctx, or see the stage's `overflow`.",
        )
