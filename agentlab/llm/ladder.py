"""The ladder of structured output: how a schema is asked for, from the strictest way to plain words. Pure.

    schema  the provider holds the answer to the schema (a grammar, for a local model)
    tool    the model has to call a tool whose parameters are the schema
    json    the provider holds the answer to JSON; the schema stands in the prompt
    prompt  the schema stands in the prompt, and nothing holds the model to it

Whatever the rung, the answer is checked here (`structured`): no promise is trusted.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from agentlab.llm.config import Cap
from agentlab.llm.types import Delta, Message, Request, Tool, ToolCall

Rung = Literal["schema", "tool", "json", "prompt"]

_TOOL = "answer"
_NEEDS: dict[Rung, Cap | None] = {"schema": "schema", "tool": "tools", "json": "json", "prompt": None}


def rungs(request: Request, caps: Iterable[Cap]) -> tuple[Rung, ...]:
    """The ways in which a model with these capabilities can be asked, strictest first.

    A request that brings tools of its own cannot be asked through a tool.
    """
    able = set(caps)
    return tuple(
        rung
        for rung, need in _NEEDS.items()
        if (need is None or need in able) and not (rung == "tool" and request.tools)
    )


def shaped(request: Request, rung: Rung) -> Request:
    """The request, with its schema asked for in the way of a rung."""
    if request.schema is None or rung == "schema":
        return request
    if rung == "tool":
        tool = Tool(_TOOL, "Gives the answer.", request.schema)
        return replace(request, schema=None, tools=(tool,), tool_choice=_TOOL)
    return replace(
        request, schema=None, json_only=rung == "json", messages=_with_schema(request.messages, request.schema)
    )


def answer_of(rung: Rung, text: str, calls: tuple[ToolCall, ...]) -> tuple[str, tuple[ToolCall, ...]]:
    """Text and tool calls as the caller sees them: the arguments of the rung's own tool are the text."""
    own = next((call for call in calls if call.name == _TOOL), None) if rung == "tool" else None
    return (text, calls) if own is None else (own.arguments, tuple(call for call in calls if call is not own))


def heard(rung: Rung, delta: Delta, own: set[int]) -> Delta:
    """A piece as a listener hears it: what the rung's own tool is given is text. `own` collects its indexes."""
    if rung != "tool" or not delta.tools:
        return delta
    own.update(piece.index for piece in delta.tools if piece.name == _TOOL)
    text = "".join(piece.arguments for piece in delta.tools if piece.index in own)
    return replace(delta, text=delta.text + text, tools=tuple(piece for piece in delta.tools if piece.index not in own))


def _with_schema(messages: tuple[Message, ...], schema: Mapping[str, Any]) -> tuple[Message, ...]:
    """The conversation, led by the schema. Small models follow what comes first better than what comes late."""
    words = (
        "Answer with one JSON object and nothing else. It follows this JSON schema:\n"
        f"{json.dumps(dict(schema), ensure_ascii=False)}"
    )
    if messages and messages[0].role == "system":
        return (Message("system", f"{messages[0].content}\n\n{words}"), *messages[1:])
    return (Message("system", words), *messages)
