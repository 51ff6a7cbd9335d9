"""What a request asks for, whichever of the protocols it speaks. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Question:
    """The part of a request's body that the answer depends on.

    Attributes:
        usage: whether the stream has to end with the usage.
        max_tokens: None is no limit.
        prompt_tokens: words of the prompt: this server's tokens are words.
        schema: JSON schema that the answer has to follow.
        tools: name and JSON schema of each tool.
        forced: the tool that has to be called; "" leaves it open.
        texts: to embed.
    """

    model: str
    streamed: bool
    usage: bool
    max_tokens: int | None
    prompt_tokens: int
    schema: Mapping[str, Any] | None
    tools: tuple[tuple[str, Mapping[str, Any]], ...]
    forced: str
    texts: tuple[str, ...]


def read(body: bytes) -> Question:
    """The question in a body.

    Raises:
        ValueError: it is no JSON object with a model.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None
    if not isinstance(asked, dict) or not isinstance(asked.get("model"), str):
        raise ValueError("the body names no model")
    tools = tuple(_tools(asked.get("tools")))
    texts = asked.get("input", ())
    limit = asked.get("max_tokens") or asked.get("max_completion_tokens")
    return Question(
        model=asked["model"],
        streamed=asked.get("stream") is True,
        usage=_mapping(asked.get("stream_options")).get("include_usage") is True,
        max_tokens=limit if isinstance(limit, int) else None,
        prompt_tokens=sum(_words(message) for message in asked.get("messages") or () if isinstance(message, dict)),
        schema=_schema(asked),
        tools=tools,
        forced=_forced(asked.get("tool_choice"), tools),
        texts=(texts,) if isinstance(texts, str) else tuple(str(text) for text in texts),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _words(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    if isinstance(content, list):
        return sum(len(str(_mapping(part).get("text", "")).split()) for part in content)
    return len(str(content or "").split())


def _schema(asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """OpenAI's `response_format`, or Anthropic's `output_config.format`, called `output_format` before."""
    openai = _mapping(_mapping(asked.get("response_format")).get("json_schema")).get("schema")
    anthropic = _mapping(_mapping(asked.get("output_config")).get("format") or asked.get("output_format")).get("schema")
    schema = openai or anthropic
    return schema if isinstance(schema, dict) else None


def _tools(given: object) -> list[tuple[str, Mapping[str, Any]]]:
    tools = [_mapping(tool) for tool in given] if isinstance(given, list) else []
    functions = [(_mapping(tool.get("function")) or tool) for tool in tools]
    return [
        (str(function.get("name")), _mapping(function.get("parameters") or function.get("input_schema")))
        for function in functions
    ]


def _forced(choice: object, tools: tuple[tuple[str, Mapping[str, Any]], ...]) -> str:
    if not tools:
        return ""
    wanted = _mapping(choice)
    if choice == "required" or wanted.get("type") == "any":
        return tools[0][0]
    return str(_mapping(wanted.get("function")).get("name") or wanted.get("name") or "")
