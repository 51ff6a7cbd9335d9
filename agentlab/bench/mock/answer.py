"""What a request asks for, in whichever protocol, and what is said: the words or the tool calls of an answer. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agentlab.bench.mock.script import MockScene

_PIECE = 4  # characters of JSON in a token
_NO_SENSE = {"unexpected": ["nobody asked for this"]}
# What providers call an error, by the reason in a script; otherwise by its status.
_CODES = {
    "context": ("context_length_exceeded", "This model's maximum context length is 128 tokens."),
    "quota": ("insufficient_quota", "You exceeded your current quota."),
    "filter": ("content_filter", "The content was filtered."),
}
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
_TYPES |= {413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error"}


@dataclass(frozen=True, slots=True)
class MockQuestion:
    """The part of a request's body that the answer depends on."""

    model: str
    streamed: bool
    usage: bool  # the stream has to end with it
    max_tokens: int | None
    prompt_tokens: int  # words of the prompt: this server's tokens are words
    schema: Mapping[str, Any] | None  # JSON schema that the answer has to follow
    tools: tuple[tuple[str, Mapping[str, Any]], ...]  # name and JSON schema of each
    forced: str  # the tool that has to be called; "" leaves it open
    texts: tuple[str, ...]  # to embed


def read(body: bytes) -> MockQuestion:
    """The question in a body.

    Raises:
        ValueError: it is no JSON object with a model.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("model"), str):
        raise ValueError("the body has no model")
    tools = tuple(_tools(request.get("tools")))
    texts = request.get("input", ())
    limit = request.get("max_tokens") or request.get("max_completion_tokens")
    return MockQuestion(
        model=request["model"],
        streamed=request.get("stream") is True,
        usage=_mapping(request.get("stream_options")).get("include_usage") is True,
        max_tokens=limit if isinstance(limit, int) else None,
        prompt_tokens=sum(_words(message) for message in request.get("messages") or () if isinstance(message, dict)),
        schema=_schema(request),
        tools=tools,
        forced=_forced_tool(request.get("tool_choice"), tools),
        texts=(texts,) if isinstance(texts, str) else tuple(str(text) for text in texts),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _words(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    if isinstance(content, list):
        return sum(len(str(_mapping(part).get("text", "")).split()) for part in content)
    return len(str(content or "").split())


def _schema(request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """OpenAI's `response_format`, or Anthropic's `output_config.format`, called `output_format` before."""
    openai = _mapping(_mapping(request.get("response_format")).get("json_schema")).get("schema")
    output_config = _mapping(request.get("output_config"))
    anthropic = _mapping(output_config.get("format") or request.get("output_format")).get("schema")
    schema = openai or anthropic
    return schema if isinstance(schema, dict) else None


def _tools(raw_tools: object) -> list[tuple[str, Mapping[str, Any]]]:
    tools = [_mapping(tool) for tool in raw_tools] if isinstance(raw_tools, list) else []
    functions = [(_mapping(tool.get("function")) or tool) for tool in tools]
    return [
        (str(function.get("name")), _mapping(function.get("parameters") or function.get("input_schema")))
        for function in functions
    ]


def _forced_tool(choice: object, tools: tuple[tuple[str, Mapping[str, Any]], ...]) -> str:
    if not tools:
        return ""
    choice_fields = _mapping(choice)
    if choice == "required" or choice_fields.get("type") == "any":
        return tools[0][0]
    return str(_mapping(choice_fields.get("function")).get("name") or choice_fields.get("name") or "")


def dump(value: Any) -> bytes:
    """Compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def error_fields(status: int, reason: str, message: str) -> tuple[str, str, str]:
    """Type, code and text of an error."""
    code, text = _CODES.get(reason, (_TYPES.get(status, "api_error"), f"The script says {status}."))
    return _TYPES.get(status, "api_error"), code, message or text


@dataclass(frozen=True, slots=True)
class MockCall:
    """A tool call, its JSON arguments in pieces."""

    id: str
    name: str
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MockAnswer:
    """`finish` is stop, length or tool_calls, as OpenAI calls it; `usage` says whether a stream reports it."""

    model: str
    pieces: tuple[str, ...]
    calls: tuple[MockCall, ...]
    finish: str
    prompt_tokens: int
    cost: float | None
    usage: bool

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        return len(self.pieces) + sum(len(call.pieces) for call in self.calls)


@lru_cache(maxsize=64)
def numbers(count: int) -> tuple[str, ...]:
    """The tokens "0", " 1", " 2"...: a text put together from two answers gives itself away."""
    return tuple(f" {number}" if number else "0" for number in range(count))


def answer_to(question: MockQuestion, scene: MockScene) -> MockAnswer:
    """What a scene says to a question; where it is cut is decided elsewhere."""
    pieces, calls, finish = _answer_parts(question, scene)
    return MockAnswer(question.model, pieces, calls, finish, question.prompt_tokens, scene.cost, question.usage)


def _answer_parts(question: MockQuestion, scene: MockScene) -> tuple[tuple[str, ...], tuple[MockCall, ...], str]:
    if scene.act == "empty":
        return (), (), "stop"
    if scene.act == "wrong-schema":
        return _cut(_NO_SENSE), (), "stop"
    if scene.act == "tool" or question.forced:
        return (), _calls(question, scene.calls), "tool_calls"
    if question.schema is not None:
        return _cut(_instance(question.schema)), (), "stop"
    if question.max_tokens is not None and question.max_tokens < scene.tokens:
        return numbers(question.max_tokens), (), "length"
    return numbers(scene.tokens), (), "stop"


def _calls(question: MockQuestion, count: int) -> tuple[MockCall, ...]:
    tools = question.tools or (("lookup", {"type": "object"}),)
    first = next((tool for tool in tools if tool[0] == question.forced), None)
    called_tools = [first] if first else [tools[number % len(tools)] for number in range(count)]
    return tuple(MockCall(f"call_{k}", name, _cut(_instance(schema))) for k, (name, schema) in enumerate(called_tools))


def _cut(value: Any) -> tuple[str, ...]:
    text = json.dumps(value, ensure_ascii=False)
    return tuple(text[start : start + _PIECE] for start in range(0, len(text), _PIECE))


def _instance(schema: Any) -> Any:
    from agentlab.llm.providers.scripted import instance  # brings pydantic, which a plain answer does not need

    return instance(schema, lambda options: options[0])
