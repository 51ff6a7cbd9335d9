"""OpenAI's chat completions: what is sent. Pure."""

from collections.abc import Mapping
from typing import Any

from agentlab.llm.types import Message, Request, Tool

# What single models refuse; see `dialect`.
REFUSABLE: Mapping[str, str | None] = {
    "max_tokens": "max_completion_tokens",
    "top_p": None,
    "temperature": None,
    "seed": None,
    "stream_options": None,
}


def request_body(request: Request, extras: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON to send. Always streamed and with usage: a whole answer is the end of a stream. `extras` come on top."""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "seed": request.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop"] = list(request.stop)
    if request.schema is not None:
        wanted = {"name": "answer", "strict": True, "schema": dict(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": wanted}
    elif request.json_only:
        body["response_format"] = {"type": "json_object"}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        body["tool_choice"] = _tool_choice(request.tool_choice)
    return {**body, **extras}


def _message(message: Message) -> dict[str, Any]:
    shape: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        shape["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        shape["tool_call_id"] = message.tool_call_id
    return shape


def _tool(tool: Tool) -> dict[str, Any]:
    wanted = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": wanted}


def _tool_choice(choice: str) -> str | dict[str, Any]:
    return choice if choice in ("auto", "none", "required") else {"type": "function", "function": {"name": choice}}
