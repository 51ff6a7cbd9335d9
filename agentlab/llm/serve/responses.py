"""OpenAI's responses: the request as a call. Pure.

Nothing is stored, so a conversation is sent whole, as `input`; what refers to something stored is refused by name.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Discriminator, Field, Tag

from agentlab.llm.options import Options
from agentlab.llm.serve.call import (
    LABELS,
    TAG,
    Call,
    Document,
    Function,
    Request,
    bounded,
    checked,
    checked_tools,
    chosen_tool,
    clamped,
    only,
    refused,
)
from agentlab.llm.serve.responses_reply import ResponseReply
from agentlab.llm.types import Message, ToolCall

_PARTS = ("input_text", "output_text", "text", "refusal")
_LOGPROBS = "message.output_text.logprobs"


def _parts(content: Any) -> Any:
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content


class _Part(Document):
    ignored = frozenset({"annotations", "logprobs", "prompt_cache_breakpoint"})
    type: Annotated[str, only(*_PARTS)]
    text: str = Field(validation_alias=AliasChoices("text", "refusal"))


_Content = Annotated[list[_Part], Field(fail_fast=True), BeforeValidator(_parts)]


class _Item(Document):
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


def _items(given: Any) -> Any:
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


class _Tool(Function):
    type: Literal["function"]


class _Format(Document):
    ignored = frozenset({"strict"})  # the router checks every answer
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    definition: dict[str, Any] | None = Field(None, alias="schema")


class _Text(Document):
    ignored = frozenset({"verbosity"})
    format: _Format | None = None


_Stored = Annotated[Any, only(None, why="nothing is stored here; send the whole conversation as `input`")]


def _named(choice: Mapping[str, Any]) -> Any:
    return choice.get("name")


class ResponseRequest(Request):
    """The body of POST /v1/responses.

    Reasoning is a wish; a prompt that does not fit is refused whatever `truncation` says; `max_tool_calls` bounds the
    tools that a server runs by itself, of which there are none.
    """

    ignored = LABELS | {"reasoning", "truncation", "max_tool_calls"}
    input: Annotated[list[_AnyItem], Field(min_length=1, fail_fast=True), BeforeValidator(_items)]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    tools: list[_Tool] | None = Field(None, max_length=128, fail_fast=True)
    tool_choice: Annotated[
        str | None, BeforeValidator(partial(chosen_tool, name=lambda choice: choice.get("name")))
    ] = None
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
        """Everything but the messages, as the router takes it."""
        if _LOGPROBS in (self.include or ()):
            raise refused("include", f"{_LOGPROBS} is not supported")
        format_ = self.text.format if self.text else None
        if format_ and (format_.type == "json_schema") != (format_.definition is not None):
            raise refused("text.format", "type json_schema and a schema belong together")
        return Options(
            temperature=self.temperature,
            max_tokens=clamped(self.max_output_tokens),
            top_p=self.top_p,
            tools=checked_tools(self.tools or (), self.tool_choice, "tools[{}].name"),
            tool_choice=self.tool_choice or "auto",
            json_only=format_ is not None and format_.type == "json_object",
            json_schema=bounded(format_.definition, "text.format.schema") if format_ else None,
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
                yield Message("tool", _joined(item.output), (), item.call_id)
            elif item.role == "assistant":
                turn = Message("assistant", _joined(item.content))
            else:
                yield Message("user" if item.role == "user" else "system", _joined(item.content))
        if turn is not None:
            yield turn


def _joined(parts: list[_Part]) -> str:
    return "\n".join(part.text for part in parts)


def read_response(tree: Any) -> Call:
    """A request.

    Raises:
        RefusedError: it names the first parameter that is unknown, unsupported or wrong.
    """
    request = checked(ResponseRequest, tree)
    messages = tuple(request.conversation_so_far())
    one = request.parallel_tool_calls is False
    return Call(
        request.model, messages, request.options(), request.stream is True, one, partial(ResponseReply, asked=tree)
    )
