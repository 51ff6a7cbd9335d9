"""OpenAI's responses: the request as a call. Pure.

Nothing is stored, so a conversation is sent whole, as `input`; what refers to something stored is refused by name.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from agentlab.llm.options import Options
from agentlab.llm.serve.call import (
    LABELS,
    TAG,
    Format,
    Function,
    GatewayCall,
    GatewayRequest,
    MessagePart,
    Parts,
    RequestDocument,
    checked_tools,
    chosen_tool,
    clamp_tokens,
    join_parts,
    only,
    param_refusal,
    validate_document,
)
from agentlab.llm.serve.responses_reply import ResponseReply
from agentlab.llm.types import Message, ToolCall

_LOGPROBS = "message.output_text.logprobs"


_Content = Annotated[list[MessagePart], Field(fail_fast=True), Parts]


class _Item(RequestDocument):
    ignored = frozenset({"id", "status", "phase", "summary", "content", "encrypted_content"})


class _Said(_Item):
    ignored = _Item.ignored - {"content"}
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: _Content


class _Called(_Item):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class _Result(_Item):
    type: Literal["function_call_output"]
    call_id: str
    output: _Content


class _Reasoning(_Item):
    """What another server's model thought aloud, sent back."""

    type: Literal["reasoning"]


def _kind(item: Any) -> str:
    return f"{TAG}{item.get('type') or 'message'}" if isinstance(item, dict) else f"{TAG}message"


_AnyItem = Annotated[
    Annotated[_Said, Tag(f"{TAG}message")]
    | Annotated[_Called, Tag(f"{TAG}function_call")]
    | Annotated[_Result, Tag(f"{TAG}function_call_output")]
    | Annotated[_Reasoning, Tag(f"{TAG}reasoning")],
    Discriminator(
        _kind,
        custom_error_type="item",
        custom_error_message="only message, function_call, function_call_output and reasoning are supported",
    ),
]


def _items(content: Any) -> Any:
    return [{"role": "user", "content": content}] if isinstance(content, str) else content


class _ResponsesTool(Function):
    type: Literal["function"]


class _Text(RequestDocument):
    ignored = frozenset({"verbosity"})
    format: Format | None = None


_Stored = Annotated[Any, only(None, reason="nothing is stored here; send the whole conversation as `input`")]


def _chosen_name(choice: Mapping[str, Any]) -> Any:
    return choice.get("name")


class ResponseRequest(GatewayRequest):
    """The body of POST /v1/responses.

    Reasoning is a wish; a prompt that does not fit is refused whatever `truncation` says; `max_tool_calls` bounds the
    tools that a server runs by itself, of which there are none.
    """

    ignored = LABELS | {"reasoning", "truncation", "max_tool_calls"}
    input: Annotated[list[_AnyItem], Field(min_length=1, fail_fast=True), BeforeValidator(_items)]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    tools: list[_ResponsesTool] | None = Field(None, max_length=128, fail_fast=True)
    tool_choice: Annotated[str | None, BeforeValidator(partial(chosen_tool, name=_chosen_name))] = None
    parallel_tool_calls: bool | None = None
    text: _Text | None = None
    # nothing is stored, and nothing runs on when the client has left
    previous_response_id: _Stored = None
    conversation: _Stored = None
    prompt: _Stored = None
    background: Annotated[bool | None, only(False, None)] = None
    top_logprobs: Annotated[int | None, only(0, None)] = None
    include: list[str] | None = Field(None, fail_fast=True)

    def options(self) -> Options:
        if _LOGPROBS in (self.include or ()):
            raise param_refusal("include", f"{_LOGPROBS} is not supported")
        format_ = self.text.format if self.text else None
        return Options(
            temperature=self.temperature,
            max_tokens=clamp_tokens(self.max_output_tokens),
            top_p=self.top_p,
            tools=checked_tools(self.tools or (), self.tool_choice, "tools[{}].name"),
            tool_choice=self.tool_choice or "auto",
            json_only=format_ is not None and format_.type == "json_object",
            json_schema=format_.bounded_schema("text.format") if format_ else None,
        )

    def conversation_so_far(self) -> Iterator[Message]:
        """The messages, as the router takes them: the calls of a turn belong to what was said before them."""
        if self.instructions:
            yield Message("system", self.instructions)
        turn: Message | None = None  # the assistant's, which further calls may join
        for item in self.input:
            if isinstance(item, _Called):
                before = turn or Message("assistant", "")
                call = ToolCall(item.call_id, item.name, item.arguments)
                turn = Message("assistant", before.content, (*before.tool_calls, call))
                continue
            if isinstance(item, _Reasoning):
                continue
            if turn is not None:
                yield turn
            turn = None
            if isinstance(item, _Result):
                yield Message("tool", join_parts(item.output), (), item.call_id)
            elif item.role == "assistant":
                turn = Message("assistant", join_parts(item.content))
            else:
                yield Message("user" if item.role == "user" else "system", join_parts(item.content))
        if turn is not None:
            yield turn


def read_response(tree: Any) -> GatewayCall:
    """A request. Raises RefusedError for the first parameter that is unknown, unsupported or wrong."""
    request = validate_document(ResponseRequest, tree)
    messages = tuple(request.conversation_so_far())
    one = request.parallel_tool_calls is False
    reply = partial(ResponseReply, request_fields=tree)
    return GatewayCall(request.model, messages, request.options(), request.stream is True, one, reply)
