"""Anthropic's own Messages API: its OpenAI-compatible layer ignores response formats.

It knows no seed, holds the system's words apart from the conversation, wants roles to take turns, and takes a schema
only in the part of the language that its grammar compiler knows.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from agentlab.errors import BadRequestError
from agentlab.llm.provider_config import AnthropicProvider
from agentlab.llm.providers import ProviderContext
from agentlab.llm.providers.anthropic_protocol import MessageReader
from agentlab.llm.providers.remote import Endpoint, key_of
from agentlab.llm.transport import Transport
from agentlab.llm.types import Delta, Message, ModelRequest, Tool, ToolCall

_VERSION = "2023-06-01"
# What single models refuse; see `remote.RefusableFields`. Some refuse the two together, and the other one weighs more.
REFUSABLE: Mapping[str, str | None] = {"top_p": None, "temperature": None}
_HOTTEST = 1.0

# Bounds that the compiler does not know: they are said in the description, and the answer is checked here anyway.
_UNKNOWN = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength",
    "maxItems", "uniqueItems", "minProperties", "maxProperties",
)  # fmt: skip


def build(name: str, provider: AnthropicProvider, surroundings: ProviderContext) -> "AnthropicModel":
    """The factory of the table in `agentlab.llm.providers`."""
    key = key_of(name, provider, surroundings)
    headers = {"anthropic-version": _VERSION} | ({} if key is None else {"x-api-key": key})
    transport = Transport(provider.base_url, surroundings.timeout, headers)
    return AnthropicModel(Endpoint(transport, key=key, key_name=provider.key_name, refusable=REFUSABLE))


class AnthropicModel:
    """All models of one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def stream(self, request: ModelRequest) -> AsyncIterator[Delta]:
        """Answer piece by piece. There is no seed: two answers to one question may differ."""
        return self._endpoint.chat("/v1/messages", request_body(request), MessageReader())

    async def close(self) -> None:
        await self._endpoint.close()


def request_body(request: ModelRequest) -> dict[str, Any]:
    """The JSON to send, always streamed. Raises BadRequestError if the API has no word for what is asked."""
    if request.json_only and request.schema is None:
        raise BadRequestError("Anthropic's API has no JSON mode without a schema.", hint="Give a schema.")
    system = "\n\n".join(m.content for m in request.messages if m.role == "system" and m.content)
    body: dict[str, Any] = {
        "model": request.model,
        "messages": _turns(request.messages),
        "max_tokens": request.max_tokens,
        "temperature": min(request.temperature, _HOTTEST),
        "stream": True,
    }
    if system:
        body["system"] = system
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if request.schema is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": compilable(request.schema)}}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        body["tool_choice"] = _tool_choice(request.tool_choice)
    return body


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The conversation without the system's words, each turn once: what follows from the same side is joined."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        blocks = _blocks(message)
        if message.role == "system" or not blocks:
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.content}]
    text = [{"type": "text", "text": message.content}] if message.content else []  # an empty block is refused
    return text + [_use(call) for call in message.tool_calls]


def _use(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise BadRequestError(
            f"The arguments of the tool call {call.id} are not a JSON object and cannot be sent back."
        )
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _tool(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "input_schema": dict(tool.parameters)}


def _tool_choice(choice: str) -> dict[str, str]:
    if choice in ("auto", "none"):
        return {"type": choice}
    return {"type": "any"} if choice == "required" else {"type": "tool", "name": choice}


def compilable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema in the part of the language that the API holds an answer to.

    What fits the schema fits the result as well. Bounds that are not known move into the description.

    Raises:
        BadRequestError: it has an object whose properties are not listed, which the API would take for an empty one.
    """
    narrowed = {key: _inside(key, value) for key, value in schema.items() if key not in _UNKNOWN}
    if "oneOf" in narrowed:
        narrowed["anyOf"] = narrowed.pop("oneOf")
    unknown = {key: schema[key] for key in _UNKNOWN if key in schema}
    if isinstance(narrowed.get("minItems"), int) and narrowed["minItems"] > 1:
        unknown["minItems"], narrowed["minItems"] = narrowed["minItems"], 1
    if schema.get("type") == "object" or "properties" in schema:
        if "properties" not in schema or schema.get("additionalProperties", False) is not False:
            raise BadRequestError("Anthropic's API does not accept schemas for objects with unlisted properties.")
        narrowed["additionalProperties"] = False
    if unknown:
        narrowed["description"] = f"{narrowed.get('description', '')} {json.dumps(unknown)}".strip()
    return narrowed


def _inside(key: str, value: Any) -> Any:
    """Narrow the schemas below a keyword; under `properties` and `$defs` the keys are names, not keywords."""
    if key in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
        return {name: compilable(one) if isinstance(one, Mapping) else one for name, one in value.items()}
    if key == "items" and isinstance(value, Mapping):
        return compilable(value)
    if key in ("anyOf", "oneOf", "allOf") and isinstance(value, list):
        return [compilable(one) if isinstance(one, Mapping) else one for one in value]
    return value
