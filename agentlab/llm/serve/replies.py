"""Answers, pieces of answers and vectors as OpenAI's documents and events. Pure."""

import base64
import json
import sys
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentlab.llm.types import Completion, Delta, Embeddings, ToolCall, ToolPiece, Usage

DONE = b"data: [DONE]\n\n"


def encoded(document: Mapping[str, Any]) -> bytes:
    """JSON; half a character, which a model may write, becomes a question mark."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def event(document: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + encoded(document) + b"\n\n"


def usage(consumed: Usage) -> dict[str, Any] | None:
    """OpenAI's usage, with the cost where it is known; None where tokens are unknown, as there is no word for that."""
    if consumed.input_tokens is None or consumed.output_tokens is None:
        return None
    known = {
        "prompt_tokens": consumed.input_tokens,
        "completion_tokens": consumed.output_tokens,
        "total_tokens": consumed.input_tokens + consumed.output_tokens,
    }
    return known if consumed.cost_usd is None else {**known, "cost": consumed.cost_usd}


def completion(answer: Completion[Any], id_: str, created: int) -> dict[str, Any]:
    """A whole answer; `model` is the one of the config that gave it. `created` is UNIX time in seconds."""
    text = _text(answer)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if answer.tool_calls:
        message |= {"content": text or None, "tool_calls": [_call(call) for call in answer.tool_calls]}
    return {
        "id": id_,
        "object": "chat.completion",
        "created": created,
        "model": answer.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}],
        "usage": usage(answer.usage),
    }


def whole(answer: Completion[Any]) -> Delta:
    """An answer in one piece."""
    pieces = (ToolPiece(i, call.id, call.name, call.arguments) for i, call in enumerate(answer.tool_calls))
    return Delta(text=_text(answer), tools=tuple(pieces))


def _text(answer: Completion[Any]) -> str:
    """What was checked, without the words that a model may have put around it."""
    return answer.text if isinstance(answer.value, str) else json.dumps(answer.value, ensure_ascii=False)


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


@dataclass(frozen=True, slots=True)
class Pieces:
    """Turns the pieces of one answer into events. `created` is UNIX time in seconds; `model` is what was asked for."""

    id: str
    created: int
    model: str
    include_usage: bool

    def opening(self) -> bytes:
        """The first event, which says who speaks."""
        return self._event({"role": "assistant", "content": ""})

    def piece(self, delta: Delta) -> bytes:
        """The event of a piece; empty for one that says nothing."""
        said: dict[str, Any] = {}
        if delta.text:
            said["content"] = delta.text
        if delta.reasoning:
            said["reasoning_content"] = delta.reasoning
        if delta.tools:
            said["tool_calls"] = [_tool_piece(piece) for piece in delta.tools]
        return self._event(said) if said else b""

    def closing(self, answer: Completion[Any]) -> bytes:
        """The last events: how the answer ended, who gave it, what it took, and that it is complete."""
        last = replace(self, model=answer.model)
        used = {**last._frame(), "choices": [], "usage": usage(answer.usage)}
        return last._event({}, answer.finish) + (event(used) if self.include_usage else b"") + DONE

    def _event(self, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event({**self._frame(), "choices": [choice], **({"usage": None} if self.include_usage else {})})

    def _frame(self) -> dict[str, Any]:
        return {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}


def _tool_piece(piece: ToolPiece) -> dict[str, Any]:
    """Id and name come once, with the first piece of a call."""
    function = {"arguments": piece.arguments} | ({"name": piece.name} if piece.name else {})
    return {"index": piece.index, "function": function} | ({"id": piece.id, "type": "function"} if piece.id else {})


def models(owners: Mapping[str, str], created: int) -> dict[str, Any]:
    """All names that a client may use, with who owns them."""
    return {"object": "list", "data": [model(name, owner, created) for name, owner in owners.items()]}


def model(name: str, owner: str, created: int) -> dict[str, Any]:
    """One of them."""
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


def embeddings(found: Embeddings, name: str, *, as_base64: bool) -> dict[str, Any]:
    """Vectors in the order of the texts; in base64 as little-endian numbers of 4 bytes."""
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if as_base64 else list(vector)}
        for index, vector in enumerate(found.vectors)
    ]
    tokens = found.usage.input_tokens
    consumed = None if tokens is None else {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": name, "usage": consumed}


def _packed(vector: Iterable[float]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")
