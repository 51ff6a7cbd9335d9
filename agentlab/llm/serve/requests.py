"""OpenAI's request documents, checked and translated. A parameter that would be ignored is refused by name. Pure."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError, from_json

from agentlab.llm.config import Strategy
from agentlab.llm.options import Options
from agentlab.llm.serve.faults import RefusedError
from agentlab.llm.types import Message, Tool, ToolCall

_CHOICES = ("auto", "none", "required")
_ANY_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}
_MOST_TEXTS = 2048  # of one request for vectors


def _only(*values: Any) -> AfterValidator:
    """A parameter that is understood, of which nothing but what everybody means without it can be kept."""
    listed = " or ".join(f"{value!r}" for value in values)

    def check(given: Any) -> Any:
        if given not in values:
            raise PydanticCustomError("unsupported", "only {listed} is supported", {"listed": listed})
        return given

    return AfterValidator(check)


def _parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _tool_name(choice: Any) -> Any:
    """`{"type": "function", "function": {"name": ...}}` and `"auto"` alike, as a word."""
    if choice is None or choice in _CHOICES:
        return choice
    named = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    if not isinstance(named, dict):
        raise PydanticCustomError("choice", "auto, none, required or a function by its name")
    return named.get("name", "")


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class _Part(_Asked):
    type: Annotated[str, _only("text")]
    text: str


class _CalledFunction(_Asked):
    name: str
    arguments: str


class _Call(_Asked):
    id: str
    type: Literal["function"] = "function"
    function: _CalledFunction


class _Message(_Asked):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[list[_Part] | None, BeforeValidator(_parts)] = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    # an answer of ours, sent back as it came
    refusal: None = None
    annotations: Annotated[list[Any] | None, _only([], None)] = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise PydanticCustomError("role", "only an assistant's message has tool_calls")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise PydanticCustomError("role", "tool_call_id belongs to a tool's message, and only there")
        if self.content is None and not self.tool_calls:
            raise PydanticCustomError("role", "content is missing")
        return self

    def ours(self) -> Message:
        calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in self.tool_calls or ())
        text = "\n".join(part.text for part in self.content or ())
        role = "system" if self.role == "developer" else self.role
        return Message(role, text, calls, self.tool_call_id or "")


class _Function(_Asked):
    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    # a wish to the model: who runs a tool has to check the arguments of a call anyway
    strict: bool | None = None


class _Tool(_Asked):
    type: Literal["function"]
    function: _Function

    def ours(self) -> Tool:
        return Tool(self.function.name, self.function.description or "", self.function.parameters or _ANY_ARGUMENTS)


class _Schema(_Asked):
    name: str = ""
    description: str | None = None
    definition: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None  # the router checks every answer


class _Format(_Asked):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise PydanticCustomError("format", "type json_schema and json_schema belong together")
        return self


class _StreamOptions(_Asked):
    include_usage: bool | None = None
    include_obfuscation: Annotated[bool | None, _only(False, None)] = None


class ChatRequest(_Asked):
    """The body of POST /v1/chat/completions."""

    model: str
    messages: list[_Message] = Field(min_length=1)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=131_072)
    max_completion_tokens: int | None = Field(None, ge=1, le=131_072)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[list[Annotated[str, Field(min_length=1)]] | None, Field(max_length=4), BeforeValidator(_list)] = (
        None
    )
    tools: list[_Tool] | None = Field(None, max_length=128)
    tool_choice: Annotated[str | None, BeforeValidator(_tool_name)] = None
    response_format: _Format | None = None
    user: str | None = None  # a label of the client's own
    n: Annotated[int | None, _only(1, None)] = None
    logprobs: Annotated[bool | None, _only(False, None)] = None
    frequency_penalty: Annotated[float | None, _only(0, None)] = None
    presence_penalty: Annotated[float | None, _only(0, None)] = None
    parallel_tool_calls: Annotated[bool | None, _only(True, None)] = None
    store: Annotated[bool | None, _only(False, None)] = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with what it consumed."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def conversation(self) -> tuple[Message, ...]:
        """The messages, as the router takes them."""
        return tuple(message.ours() for message in self.messages)

    def options(self, strategy: Strategy | None, model: str | None) -> Options:
        """Everything else, as the router takes it."""
        format_ = self.response_format
        return Options(
            strategy=strategy,
            model=model,
            temperature=self.temperature,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            seed=self.seed or 0,
            top_p=self.top_p,
            stop=tuple(self.stop or ()),
            tools=tuple(tool.ours() for tool in self.tools or ()),
            tool_choice=self.tool_choice or "auto",
            json_only=format_ is not None and format_.type == "json_object",
            json_schema=format_.json_schema.definition if format_ and format_.json_schema else None,
        )


class EmbeddingRequest(_Asked):
    """The body of POST /v1/embeddings."""

    model: str
    input: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(min_length=1, max_length=_MOST_TEXTS),
        BeforeValidator(_list),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None


def chat_request(body: bytes) -> ChatRequest:
    """A chat request.

    Raises:
        RefusedError: no JSON, or a parameter that is unknown, unsupported or wrong; it names the first one.
    """
    request = _parsed(ChatRequest, body)
    names = [tool.function.name for tool in request.tools or ()]
    for place, name in enumerate(names):
        if name in _CHOICES or name in names[:place]:
            raise _refused(f"tools[{place}].function.name", f"{name!r} is taken")
    choice = request.tool_choice
    if choice is not None and (choice not in _CHOICES or (choice == "required" and not names)) and choice not in names:
        raise _refused("tool_choice", "no tool of the request can be called so")
    if None not in (request.max_tokens, request.max_completion_tokens):
        raise _refused("max_tokens", "max_completion_tokens means the same; send one of them")
    if request.stream_options is not None and not request.stream:
        raise _refused("stream_options", "only a request with stream: true has them")
    return request


def embedding_request(body: bytes) -> EmbeddingRequest:
    """A request for vectors; errors as in `chat_request`."""
    return _parsed(EmbeddingRequest, body)


A = TypeVar("A", bound=_Asked)


def _parsed(model: type[A], body: bytes) -> A:
    try:
        tree = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RefusedError(f"The body is not JSON: {error}.", code="invalid_json") from None
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        # the input is left out: it is the client's, and may be long
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = _place(first["loc"])
        if first["type"] == "extra_forbidden":
            raise _refused(place, "unknown or unsupported parameter", "unsupported_parameter") from None
        if first["type"] == "missing":
            raise _refused(place, "this parameter is required", "missing_required_parameter") from None
        raise _refused(place, first["msg"]) from None


def _refused(param: str, problem: str, code: str = "invalid_value") -> RefusedError:
    return RefusedError(f"{param or 'body'}: {problem}.", param=param or None, code=code)


def _place(location: tuple[int | str, ...]) -> str:
    """`("messages", 0, "content")` as `messages[0].content`; a client's own key is cut."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:80]}" for part in location)
    return text.removeprefix(".")
