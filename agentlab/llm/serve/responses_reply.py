"""OpenAI's responses: the answer as a document and as events. Pure."""

from collections.abc import Mapping
from typing import Any

from agentlab.llm.serve.call import event, text_of
from agentlab.llm.types import Completion, Delta, ToolCall, Usage

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseReply:
    """An answer as a response. `request_fields` is the request's JSON, of which a response repeats a part.

    As events, one item is written at a time: the text, then the first tool's call. What comes besides (further calls,
    which a provider may send mixed) waits for the end and is written whole.
    """

    def __init__(self, identity: str, created: int, request_fields: Mapping[str, Any]) -> None:
        self._id, self._created, self._request = identity, created, request_fields
        self._number = 0
        self._done: list[dict[str, Any]] = []  # items that are complete
        self._item: dict[str, Any] | None = None  # the one that is being written
        self._written = ""  # of it
        self._late = ""  # text that came while a call was written

    def whole_document(self, answer: Completion[Any]) -> dict[str, Any]:
        """A message, unless there are calls alone; then the calls."""
        text = text_of(answer)
        messages = [self._message(0, text, _status(answer))] if text or not answer.tool_calls else []
        called = [self._call(index, call) for index, call in enumerate(answer.tool_calls, len(messages))]
        return self._document(_status(answer), [*messages, *called], answer)

    def piece(self, delta: Delta) -> bytes:
        """Events of the item that is being written; before the first, `response.created`."""
        events = self._opening()
        if delta.text:
            events += self._say(delta.text)
        for piece in delta.tools:
            if piece.index == 0:
                events += self._ask(ToolCall(piece.id, piece.name, piece.arguments))
        return events

    def closing(self, answer: Completion[Any]) -> bytes:
        """The end of the item that is being written, what has waited, and `response.completed` or `.incomplete`."""
        status, text = _status(answer), text_of(answer)
        events = self._opening() + self._end(status)
        has_message = any(item["type"] == "message" for item in self._done)
        called = sum(item["type"] == "function_call" for item in self._done)
        late = self._late if has_message or self._late else text
        if late or not (has_message or answer.tool_calls):
            events += self._say(late, late=True) + self._end(status)
        for call in answer.tool_calls[called:]:
            events += self._ask(call) + self._end("completed")
        return events + self._event(f"response.{status}", response=self._document(status, self._done, answer))

    def broken(self, document: Mapping[str, Any]) -> bytes:
        """`response.failed`, with the code that clients of this dialect know."""
        failed = self._document("failed", self._done)
        failed["error"] = {"code": "server_error", "message": document["error"]["message"]}
        return self._event("response.failed", response=failed)

    def _opening(self) -> bytes:
        if self._number:
            return b""
        document = self._document("in_progress", [])
        created = self._event("response.created", response=document)
        return created + self._event("response.in_progress", response=document)

    def _say(self, text: str, *, late: bool = False) -> bytes:
        """A piece of text; if the answer has gone on to tools, it waits until it is late."""
        events = b""
        if self._item is None and (late or not self._done):
            self._item = self._message(len(self._done), "", "in_progress")
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            events = self._begin({**self._item, "content": []})
            events += self._event("response.content_part.added", **self._where(), content_index=0, part=part)
        if self._item is None or self._item["type"] != "message":
            self._late += text
            return events
        self._written += text
        where = {**self._where(), "content_index": 0}
        return events + self._event("response.output_text.delta", **where, delta=text, logprobs=[])

    def _ask(self, call: ToolCall) -> bytes:
        events = b""
        if self._item is None or self._item["type"] != "function_call":
            events = self._end("completed")
            self._item = self._call(len(self._done), call)
            events += self._begin({**self._item, "arguments": "", "status": "in_progress"})
        if not call.arguments:
            return events
        self._written += call.arguments
        return events + self._event("response.function_call_arguments.delta", **self._where(), delta=call.arguments)

    def _begin(self, item: Mapping[str, Any]) -> bytes:
        self._written = ""
        return self._event("response.output_item.added", output_index=len(self._done), item=item)

    def _end(self, status: str) -> bytes:
        """Complete the item that is being written, if there is one."""
        item, where = self._item, self._where()
        if item is None:
            return b""
        if item["type"] == "message":
            item = self._message(len(self._done), self._written, status)
            (part,) = item["content"]
            at = {**where, "content_index": 0}
            events = self._event("response.output_text.done", **at, text=self._written, logprobs=[])
            events += self._event("response.content_part.done", **at, part=part)
        else:
            item = {**item, "arguments": self._written}
            call_fields = {"name": item["name"], "arguments": self._written}
            events = self._event("response.function_call_arguments.done", **where, **call_fields)
        events += self._event("response.output_item.done", output_index=len(self._done), item=item)
        self._done.append(item)
        self._item = None
        return events

    def _where(self) -> dict[str, Any]:
        return {"item_id": None if self._item is None else self._item["id"], "output_index": len(self._done)}

    def _message(self, index: int, text: str, status: str) -> dict[str, Any]:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        message = {"type": "message", "status": status, "role": "assistant", "content": [part]}
        return {"id": f"msg_{self._id}_{index}", **message}

    def _call(self, index: int, call: ToolCall) -> dict[str, Any]:
        called = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
        return {"id": f"fc_{self._id}_{index}", "type": "function_call", "status": "completed", **called}

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return event({"type": kind, "sequence_number": number, **fields}, kind)

    def _document(
        self, status: str, output: list[dict[str, Any]], answer: Completion[Any] | None = None
    ) -> dict[str, Any]:
        reason = None if answer is None else _INCOMPLETE.get(answer.finish)
        return {
            "id": f"resp_{self._id}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None if reason is None else {"reason": reason},
            "instructions": self._request.get("instructions"),
            "max_output_tokens": self._request.get("max_output_tokens"),
            "metadata": self._request.get("metadata") or {},
            "model": self._request["model"] if answer is None else answer.model,
            "output": output,
            "parallel_tool_calls": self._request.get("parallel_tool_calls") is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": self._request.get("temperature"),
            "text": self._request.get("text") or {"format": {"type": "text"}},
            "tool_choice": self._request.get("tool_choice") or "auto",
            "tools": self._request.get("tools") or [],
            "top_p": self._request.get("top_p"),
            "truncation": "disabled",
            "usage": None if answer is None else _usage(answer.usage),
            "user": self._request.get("user"),
        }


def _status(answer: Completion[Any]) -> str:
    return "incomplete" if answer.finish in _INCOMPLETE else "completed"


def _usage(consumed: Usage) -> dict[str, Any] | None:
    """As this dialect has it; None where tokens are unknown. Details are unknown, which it can only call 0."""
    if consumed.input_tokens is None or consumed.output_tokens is None:
        return None
    return {
        "input_tokens": consumed.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": consumed.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": consumed.input_tokens + consumed.output_tokens,
        **({} if consumed.cost_usd is None else {"cost": consumed.cost_usd}),
    }
