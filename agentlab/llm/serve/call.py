"""What the dialects share: strict documents in, one kind of call to the router, JSON and events out. Pure.

A parameter that would change the answer and cannot be kept is refused by name; labels and wishes that change nothing of
what is asked are taken and ignored.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from agentlab.llm.options import Options
from agentlab.llm.serve.faults import RefusedError
from agentlab.llm.types import Completion, Delta, Message, Tool, Usage

DONE = b"data: [DONE]\n\n"
_CHOICES = ("auto", "none", "required")
_ANY_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}
_MOST_KEYS = 100  # of a part of a request; each that is not known costs an error
_MOST_SCHEMA = 500  # objects and lists of an answer's schema; checking it takes half a millisecond for each
_MOST_TOKENS = 131_072  # of an answer; more is asked for by clients that mean "as many as there are"


class GatewayReply(Protocol):
    """An answer in a client's dialect."""

    def whole_document(self, answer: Completion[Any]) -> dict[str, Any]: ...

    def piece(self, delta: Delta) -> bytes:
        """The events of a piece, the first with what comes before it."""

    def closing(self, answer: Completion[Any]) -> bytes:
        """How the answer ended, who gave it, what it took, and that it is complete."""

    def broken(self, document: Mapping[str, Any]) -> bytes:
        """The last event of an answer that broke off, from OpenAI's error document."""


@dataclass(frozen=True, slots=True)
class GatewayCall:
    """What a client asks, whatever its dialect."""

    model: str  # as the client names it; `options` leave it open
    messages: tuple[Message, ...]
    options: Options
    stream: bool
    one_tool: bool  # no more than one tool may be called
    reply: Callable[[str, int], GatewayReply]  # from a random identity (hexadecimal) and the UNIX time in seconds


# -- documents in -----------------------------------------------------------------------------------------------------


def only(*values: Any, reason: str = "") -> AfterValidator:
    """A parameter that is understood, of which nothing but what everybody means without it can be kept."""
    listed = " or ".join(f"{value!r}" for value in values)

    def check(param_value: Any) -> Any:
        if param_value not in values:
            raise PydanticCustomError("unsupported", "{why}", {"why": reason or f"only {listed} is supported"})
        return param_value

    return AfterValidator(check)


def _list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Nothing = Annotated[Any, only(None)]  # a parameter that cannot be kept
TAG = "<"  # begins the name of a kind of element, which is no part of where the element stands
Texts = BeforeValidator(_list)  # one text is a list of one


class RequestDocument(BaseModel):
    """A part of a request. What is neither a field nor ignored is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())
    ignored: ClassVar[frozenset[str]] = frozenset()  # labels and wishes: the question is the same without them

    @model_validator(mode="before")
    @classmethod
    def _without_labels(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        if len(tree) > _MOST_KEYS:
            raise PydanticCustomError("keys", "too many parameters")
        return {key: value for key, value in tree.items() if key not in cls.ignored}


LABELS = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier"}
    | {"prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
)


class _StreamOptions(RequestDocument):
    ignored = frozenset({"include_obfuscation"})  # padding
    include_usage: bool | None = None


class GatewayRequest(RequestDocument):
    """What chat completions, completions and responses share."""

    ignored = LABELS
    model: str
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)


class Sampled(GatewayRequest):
    """What chat completions and completions share besides."""

    max_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[list[Annotated[str, Field(min_length=1)]] | None, Field(max_length=4, fail_fast=True), Texts] = None
    n: Annotated[int | None, only(1, None)] = None
    frequency_penalty: Annotated[float | None, only(0, None)] = None
    presence_penalty: Annotated[float | None, only(0, None)] = None
    logit_bias: Annotated[dict[str, Any] | None, only({}, None)] = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with what it consumed."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self) -> Options:
        """How to sample, as the router takes it. Raises RefusedError for `stream_options` without a stream."""
        if self.stream_options is not None and not self.stream:
            raise param_refusal("stream_options", "only allowed with stream: true")
        return Options(
            temperature=self.temperature,
            max_tokens=clamp_tokens(self.max_tokens),
            seed=self.seed or 0,
            top_p=self.top_p,
            stop=tuple(self.stop or ()),
        )


def clamp_tokens(tokens: int | None) -> int | None:
    """Tokens of an answer as the router takes them; the room that a prompt leaves is the model's to know."""
    return None if tokens is None else min(tokens, _MOST_TOKENS)


def _parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class MessagePart(RequestDocument):
    """A part of a message: text, in one dialect's words or another's."""

    ignored = frozenset({"annotations", "cache_control", "logprobs", "prompt_cache_breakpoint"})
    type: Annotated[str, only("text", "input_text", "output_text", "refusal")]
    text: str = Field(validation_alias=AliasChoices("text", "refusal"))


Parts = BeforeValidator(_parts)  # a text is a list of one part


def join_parts(parts: Sequence[MessagePart]) -> str:
    """What parts say together."""
    return "\n".join(part.text for part in parts)


class Format(RequestDocument):
    """The form that an answer has to have, which the router checks."""

    ignored = frozenset({"strict"})
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    definition: dict[str, Any] | None = Field(None, alias="schema")

    def bounded_schema(self, param: str) -> Mapping[str, Any] | None:
        """The schema, if there is one; RefusedError if it is missing or too large. `param`: where the format stands."""
        if (self.type == "json_schema") != (self.definition is not None):
            raise param_refusal(param, "type json_schema and a schema must be used together")
        parts: list[Any] = [self.definition]
        for count, part in enumerate(parts):
            if count > _MOST_SCHEMA:
                raise param_refusal(param, f"a schema may have at most {_MOST_SCHEMA} objects and lists")
            inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
            parts += [node for node in inner if isinstance(node, dict | list)]
        return self.definition


class Function(RequestDocument):
    """What a model may call. `strict` is a wish to the model: who runs a tool has to check its arguments anyway."""

    ignored = frozenset({"strict", "cache_control"})
    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None

    def ours(self) -> Tool:
        return Tool(self.name, self.description or "", self.parameters or _ANY_ARGUMENTS)


def chosen_tool(choice: Any, name: Callable[[Mapping[str, Any]], Any]) -> Any:
    """A choice as a word: auto, none, required, or what `name` finds in `{"type": "function", ...}`."""
    if choice is None or choice in _CHOICES:
        return choice
    named = name(choice) if isinstance(choice, dict) and choice.get("type") == "function" else None
    if not isinstance(named, str):
        raise PydanticCustomError("choice", "must be auto, none, required or the name of a function")
    return named


def checked_tools(tools: Sequence[Function], choice: str | None, param_pattern: str) -> tuple[Tool, ...]:
    """The tools, as the router takes them. `param_pattern` is where the name of tool {0} stands.

    Raises:
        RefusedError: two have one name, or the choice is none of them.
    """
    names = [tool.name for tool in tools]
    for index, name in enumerate(names):
        if name in _CHOICES or name in names[:index]:
            raise param_refusal(param_pattern.format(index), f"the name {name!r} is used twice")
    if choice is not None and (choice not in _CHOICES or (choice == "required" and not names)) and choice not in names:
        raise param_refusal("tool_choice", "it must name a tool in the request")
    return tuple(tool.ours() for tool in tools)


D = TypeVar("D", bound=RequestDocument)


def validate_document(model: type[D], tree: Any) -> D:
    """A request's document. Raises RefusedError for the first parameter that is unknown, unsupported or wrong."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        # the input is left out: it is the client's, and may be long
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = _param_path(first["loc"])
        if first["type"] == "extra_forbidden":
            raise param_refusal(param, "unknown or unsupported parameter", "unsupported_parameter") from None
        if first["type"] == "missing":
            raise param_refusal(param, "this parameter is required", "missing_required_parameter") from None
        raise param_refusal(param, first["msg"]) from None


def param_refusal(param: str, problem: str, code: str = "invalid_value") -> RefusedError:
    """The refusal of a parameter."""
    return RefusedError(f"{param or 'body'}: {problem}.", param=param or None, code=code)


def _param_path(location: tuple[int | str, ...]) -> str:
    """`("messages", 0, "content")` as `messages[0].content`; a client's own key is cut."""
    named = (part for part in location if isinstance(part, int) or not part.startswith(TAG))
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:80]}" for part in named)
    return text.removeprefix(".")


# -- documents out ----------------------------------------------------------------------------------------------------


def encode_json(document: Mapping[str, Any]) -> bytes:
    """JSON; half a character, which a model may write, becomes a question mark."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def event(document: Mapping[str, Any], name: str | None = None) -> bytes:
    """A server-sent event."""
    return (b"" if name is None else b"event: %b\n" % name.encode()) + b"data: " + encode_json(document) + b"\n\n"


def usage(consumed: Usage) -> dict[str, Any] | None:
    """OpenAI's usage, with the cost where it is known; None where tokens are unknown, as there is no word for that."""
    if consumed.input_tokens is None or consumed.output_tokens is None:
        return None
    counts = {
        "prompt_tokens": consumed.input_tokens,
        "completion_tokens": consumed.output_tokens,
        "total_tokens": consumed.input_tokens + consumed.output_tokens,
    }
    return counts if consumed.cost_usd is None else {**counts, "cost": consumed.cost_usd}


def text_of(answer: Completion[Any]) -> str:
    """What was checked, without the words that a model may have put around it."""
    return answer.text if isinstance(answer.value, str) else json.dumps(answer.value, ensure_ascii=False)
