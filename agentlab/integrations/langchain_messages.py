"""From answers of the router to messages of LangChain. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from agentlab.errors import MissingExtraError
from agentlab.integrations.openai_messages import call_arguments
from agentlab.llm.types import Completion, Delta, ToolCall, Usage

try:
    from langchain_core.messages import AIMessage, AIMessageChunk
    from langchain_core.messages.ai import UsageMetadata
    from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
except ImportError as error:
    raise MissingExtraError(
        "LangChain is not installed.", hint="Install the extra: pip install -e '.[langchain]'"
    ) from error

PARSED = "parsed"  # where an answer's checked value travels in its message


def result_of(answer: Completion[Any]) -> ChatResult:
    """A whole answer; its checked value, if it has one, is in `additional_kwargs`."""
    right, wrong = _calls(answer.tool_calls)
    parsed = {} if isinstance(answer.value, str) else {PARSED: answer.value}
    message = AIMessage(
        content=answer.text,
        tool_calls=right,
        invalid_tool_calls=wrong,
        usage_metadata=usage_of(answer.usage),
        response_metadata=_metadata(answer),
        additional_kwargs=parsed,
    )
    return ChatResult(generations=[ChatGeneration(message=message)])


def _calls(calls: Sequence[ToolCall]) -> tuple[list[Any], list[Any]]:
    """Those whose arguments are a JSON object, and the others, which the caller may send back."""
    right, wrong = [], []
    for call in calls:
        arguments = call_arguments(call)
        if arguments is None:
            wrong.append(invalid_tool_call(name=call.name, args=call.arguments, id=call.id, error="not a JSON object"))
        else:
            right.append(tool_call(name=call.name, args=arguments, id=call.id))
    return right, wrong


def usage_of(usage: Usage) -> UsageMetadata | None:
    """Tokens, if all of them are known: LangChain has no word for unknown."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    total = usage.input_tokens + usage.output_tokens
    return UsageMetadata(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, total_tokens=total)


def _metadata(answer: Completion[Any]) -> dict[str, Any]:
    return {
        "model_name": answer.model,
        "model_provider": "agentlab",
        "finish_reason": answer.finish,
        "attempts": [asdict(attempt) for attempt in answer.attempts],
        "cost_usd": answer.usage.cost_usd,
        "cached": answer.cached,
    }


def chunks_of(delta: Delta) -> Iterator[ChatGenerationChunk]:
    """A piece of an answer, if it holds text or calls; pieces of the same call bear its index."""
    if delta.text or delta.tools:
        calls = [
            tool_call_chunk(name=piece.name or None, args=piece.arguments, id=piece.id or None, index=piece.index)
            for piece in delta.tools
        ]
        yield ChatGenerationChunk(message=AIMessageChunk(content=delta.text, tool_call_chunks=calls))


def end_of(answer: Completion[Any]) -> ChatGenerationChunk:
    """What ends a stream: what the answer took, and who gave it."""
    message = AIMessageChunk(
        content="", usage_metadata=usage_of(answer.usage), response_metadata=_metadata(answer), chunk_position="last"
    )
    return ChatGenerationChunk(message=message)


def whole_of(answer: Completion[Any]) -> ChatGenerationChunk:
    """An answer that was not streamed, as a stream of one chunk."""
    message = result_of(answer).generations[0].message
    chunk = AIMessageChunk(**{**message.model_dump(exclude={"type", PARSED}), "chunk_position": "last"})
    chunk.additional_kwargs = message.additional_kwargs
    return ChatGenerationChunk(message=chunk)
