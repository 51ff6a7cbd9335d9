"""From OpenAI's chat documents, which agent frameworks pass around as plain mappings, to ours and back. Pure.

Frameworks add keys of their own to messages; what is not known is left out. What cannot be kept is refused: a picture
that silently disappears would be answered all the same.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from agentlab.errors import BadRequestError
from agentlab.llm.types import Message, Tool, ToolCall

_ROLES = {"developer": "system", "function": "tool"}
_NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}
_SILENT = ("thinking", "reasoning", "redacted_thinking", "tool_use", "function_call")  # said in other places, or aloud


def messages_of(documents: Iterable[Mapping[str, Any]]) -> tuple[Message, ...]:
    """The conversation.

    Raises:
        BadRequestError: a message holds something else than text and calls of tools.
    """
    return tuple(_message(document) for document in documents)


def _message(document: Mapping[str, Any]) -> Message:
    role = _ROLES.get(document["role"], document["role"])
    if role not in ("system", "user", "assistant", "tool"):
        raise BadRequestError(f"A message has the role {role!r}, which is not supported.")
    calls = tuple(_call(call) for call in document.get("tool_calls") or ())
    return Message(role, _text(document.get("content")), calls, document.get("tool_call_id") or "")


def _call(document: Mapping[str, Any]) -> ToolCall:
    function = document["function"]
    arguments = function.get("arguments") or "{}"
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return ToolCall(document.get("id") or "", function["name"], text)


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    parts = [part if isinstance(part, Mapping) else {"type": "text", "text": str(part)} for part in content]
    kinds = {str(part.get("type")) for part in parts} - {"text", *_SILENT}
    if kinds:
        raise BadRequestError(
            f"A message contains {', '.join(sorted(kinds))}; only text is supported.",
            hint="Remove such parts, or describe them in words.",
        )
    return "\n".join(str(part["text"]) for part in parts if part.get("type") == "text")


def tools_of(documents: Iterable[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """The tools of a request."""
    functions = [document.get("function", document) for document in documents]
    return tuple(
        Tool(function["name"], function.get("description") or "", function.get("parameters") or _NO_ARGUMENTS)
        for function in functions
    )


def tool_choice_of(choice: Any) -> str:
    """auto, none, required, or the name of a tool, from the many forms in which frameworks say it."""
    if choice is None or choice == "auto":
        return "auto"
    if choice is True or choice in ("any", "required"):
        return "required"
    if choice is False:
        return "none"
    if isinstance(choice, Mapping):
        return str(choice.get("function", choice)["name"])
    return str(choice)


def call_arguments(call: ToolCall) -> dict[str, Any] | None:
    """The arguments of a call; None if they are no JSON object."""
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError:
        return None
    return arguments if isinstance(arguments, dict) else None


def call_document(call: ToolCall) -> dict[str, Any]:
    """A call of a tool as OpenAI writes it."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
