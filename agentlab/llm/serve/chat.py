"""OpenAI's chat completions, and the legacy completions, which differ in a prompt and in the form of a choice. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from agentlab.llm.options import Options
from agentlab.llm.serve.call import (
    DONE,
    LABELS,
    Format,
    Function,
    GatewayCall,
    MessagePart,
    Nothing,
    Parts,
    RequestDocument,
    Sampled,
    Texts,
    checked_tools,
    chosen_tool,
    clamp_tokens,
    event,
    join_parts,
    only,
    param_refusal,
    text_of,
    usage,
    validate_document,
)
from agentlab.llm.types import Completion, Delta, Message, ToolCall, ToolPiece

# what answers bear, from here or from elsewhere, that are sent back as they came
_DECORATION = frozenset(
    {"annotations", "cache_control", "extra_content", "id", "index", "parsed", "parsed_arguments"}
    | {"provider_specific_fields", "reasoning", "reasoning_content", "reasoning_details", "thinking_blocks"}
)


class _CalledFunction(RequestDocument):
    ignored = _DECORATION
    name: str
    arguments: str


class _Call(RequestDocument):
    ignored = _DECORATION - {"id"}
    id: str
    type: Annotated[str | None, only("function", None)] = None
    function: _CalledFunction


class _Message(RequestDocument):
    ignored = _DECORATION | {"name"}
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[list[MessagePart] | None, Field(fail_fast=True), Parts] = None
    tool_calls: list[_Call] | None = Field(None, fail_fast=True)
    tool_call_id: str | None = None
    refusal: str | None = None
    audio: Nothing = None
    function_call: Nothing = None

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise PydanticCustomError("role", "only assistant messages may have tool_calls")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise PydanticCustomError("role", "tool messages need a tool_call_id; other messages cannot have one")
        if self.content is None and self.role != "assistant":
            raise PydanticCustomError("role", "content is missing")
        return self

    def ours(self) -> Message:
        calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in self.tool_calls or ())
        text = self.refusal or "" if self.content is None else join_parts(self.content)
        role = "system" if self.role == "developer" else self.role
        return Message(role, text, calls, self.tool_call_id or "")


class _ChatTool(RequestDocument):
    ignored = frozenset({"cache_control"})
    type: Literal["function"]
    function: Function


def _flat(tree: Any) -> Any:
    """`{"type": ..., "json_schema": {"schema": ...}}` with its schema at the top."""
    inner = tree.get("json_schema") if isinstance(tree, dict) else None
    return {**inner, **{key: tree[key] for key in tree if key != "json_schema"}} if isinstance(inner, dict) else tree


def _chosen_name(choice: Mapping[str, Any]) -> Any:
    function = choice.get("function")
    return function.get("name") if isinstance(function, dict) else None


class ChatCompletionsRequest(Sampled):
    """The body of POST /v1/chat/completions. A prediction makes an answer faster, effort and verbosity are wishes."""

    ignored = LABELS | {"prediction", "reasoning_effort", "verbosity"}
    messages: list[_Message] = Field(min_length=1, fail_fast=True)
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: list[_ChatTool] | None = Field(None, max_length=128, fail_fast=True)
    tool_choice: Annotated[str | None, BeforeValidator(partial(chosen_tool, name=_chosen_name))] = None
    parallel_tool_calls: bool | None = None
    response_format: Annotated[Format | None, BeforeValidator(_flat)] = None
    logprobs: Annotated[bool | None, only(False, None)] = None
    top_logprobs: Annotated[int | None, only(0, None)] = None
    modalities: Annotated[Any, only(["text"], None)] = None
    audio: Nothing = None
    functions: Nothing = None
    function_call: Nothing = None
    web_search_options: Nothing = None

    def options(self) -> Options:
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise param_refusal("max_tokens", "same as max_completion_tokens; send only one of them")
        sampling, format_ = self.sampling(), self.response_format
        functions = [tool.function for tool in self.tools or ()]
        return replace(
            sampling,
            max_tokens=clamp_tokens(self.max_completion_tokens) or sampling.max_tokens,
            tools=checked_tools(functions, self.tool_choice, "tools[{}].function.name"),
            tool_choice=self.tool_choice or "auto",
            json_only=format_ is not None and format_.type == "json_object",
            json_schema=format_.bounded_schema("response_format") if format_ else None,
            thoughts=True,
        )


class CompletionRequest(Sampled):
    """The body of POST /v1/completions. The models are chat models: the prompt is put to them as a user's message."""

    prompt: Annotated[list[str], Field(min_length=1, max_length=1), Texts]
    best_of: Annotated[int | None, only(1, None)] = None
    echo: Annotated[bool | None, only(False, None)] = None
    logprobs: Nothing = None
    suffix: Annotated[str | None, only("", None)] = None


def read_chat(tree: Any) -> GatewayCall:
    """A chat request. Raises RefusedError for the first parameter that is unknown, unsupported or wrong."""
    request = validate_document(ChatCompletionsRequest, tree)
    messages = tuple(message.ours() for message in request.messages)
    reply = partial(ChatReply, model=request.model, include_usage=request.include_usage)
    one = request.parallel_tool_calls is False
    return GatewayCall(request.model, messages, request.options(), request.stream is True, one, reply)


def read_completion(tree: Any) -> GatewayCall:
    """A legacy request; errors as in `read_chat`."""
    request = validate_document(CompletionRequest, tree)
    reply = partial(CompletionReply, model=request.model, include_usage=request.include_usage)
    messages = (Message("user", request.prompt[0]),)
    return GatewayCall(request.model, messages, request.sampling(), request.stream is True, False, reply)


class ChatReply:
    """An answer as chat completions have it. `model` is what was asked for, until it is known who answered."""

    prefix, object, chunk = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def __init__(self, identity: str, created: int, model: str, include_usage: bool) -> None:
        self._frame = {"id": self.prefix + identity, "object": self.chunk, "created": created, "model": model}
        self._include_usage = include_usage
        self._begun = False

    def whole_document(self, answer: Completion[Any]) -> dict[str, Any]:
        """`model` is the one of the config that gave it."""
        choice = {"index": 0, **self._choice_content(answer), "logprobs": None, "finish_reason": answer.finish}
        changed = {"object": self.object, "model": answer.model}
        return {**self._frame, **changed, "choices": [choice], "usage": usage(answer.usage)}

    def _choice_content(self, answer: Completion[Any]) -> dict[str, Any]:
        text = text_of(answer)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if answer.tool_calls:
            message |= {"content": text or None, "tool_calls": [_call(call) for call in answer.tool_calls]}
        return {"message": message}

    def piece(self, delta: Delta) -> bytes:
        """An event; before the first, one that says who speaks."""
        delta_fields: dict[str, Any] = {}
        if delta.text:
            delta_fields["content"] = delta.text
        if delta.reasoning:
            delta_fields["reasoning_content"] = delta.reasoning
        if delta.tools:
            delta_fields["tool_calls"] = [_tool_piece(piece) for piece in delta.tools]
        return self._opening() + (self._event({"delta": delta_fields}) if delta_fields else b"")

    def _opening(self) -> bytes:
        opening, self._begun = not self._begun, True
        return self._event({"delta": {"role": "assistant", "content": ""}}) if opening else b""

    _last: Mapping[str, Any] = {"delta": {}}

    def closing(self, answer: Completion[Any]) -> bytes:
        """How it ended; what it took, if that was asked for; and that it is complete."""
        opening = self._opening()
        self._frame["model"] = answer.model
        used = {**self._frame, "choices": [], "usage": usage(answer.usage)}
        return opening + self._event(self._last, answer.finish) + (event(used) if self._include_usage else b"") + DONE

    def broken(self, document: Mapping[str, Any]) -> bytes:
        return event(document)

    def _event(self, choice_fields: Mapping[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, **choice_fields, "logprobs": None, "finish_reason": finish}
        return event({**self._frame, "choices": [choice], **({"usage": None} if self._include_usage else {})})


class CompletionReply(ChatReply):
    """An answer as legacy completions have it: text and nothing else."""

    prefix, object, chunk = "cmpl-", "text_completion", "text_completion"
    _last: Mapping[str, Any] = {"text": ""}

    def _choice_content(self, answer: Completion[Any]) -> dict[str, Any]:
        return {"text": text_of(answer)}

    def _opening(self) -> bytes:
        return b""

    def piece(self, delta: Delta) -> bytes:
        return self._event({"text": delta.text}) if delta.text else b""


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _tool_piece(piece: ToolPiece) -> dict[str, Any]:
    """Id and name come once, with the first piece of a call."""
    function = {"arguments": piece.arguments} | ({"name": piece.name} if piece.name else {})
    return {"index": piece.index, "function": function} | ({"id": piece.id, "type": "function"} if piece.id else {})
