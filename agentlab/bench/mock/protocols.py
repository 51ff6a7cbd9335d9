"""OpenAI's protocol (chat completions, embeddings, models) and Anthropic's (messages)."""

import hashlib
import json
from functools import lru_cache
from typing import Any

from agentlab.bench.mock.answer import MockAnswer, MockCall, MockQuestion, dump, error_fields
from agentlab.bench.mock.script import MockScene

_CREATED = 1_767_225_600  # UNIX seconds; the clock says nothing here
_ID = "chatcmpl-mock"
_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def _event(model: str, choices: list[Any], **fields: Any) -> bytes:
    chunk = {"id": _ID, "object": "chat.completion.chunk", "created": _CREATED, "model": model, "choices": choices}
    return b"data: %b\n\n" % dump({**chunk, **fields})


def _delta(model: str, delta: dict[str, Any], finish: str | None = None) -> bytes:
    return _event(model, [{"index": 0, "delta": delta, "finish_reason": finish}])


@lru_cache(maxsize=32)
def _words(model: str, pieces: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(_delta(model, {"content": piece}) for piece in pieces)


def _call_pieces(model: str, calls: tuple[MockCall, ...]) -> list[bytes]:
    """Calls that run in parallel alternate; the first piece of each carries its id and name."""
    events = []
    for number in range(max((len(call.pieces) for call in calls), default=0)):
        for index, call in enumerate(calls):
            if number < len(call.pieces):
                piece: dict[str, Any] = {"index": index, "function": {"arguments": call.pieces[number]}}
                if number == 0:
                    piece |= {"id": call.id, "type": "function"}
                    piece["function"]["name"] = call.name
                events.append(_delta(model, {"tool_calls": [piece]}))
    return events


def _usage(answer: MockAnswer) -> dict[str, Any]:
    tokens = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.tokens}
    cost = {} if answer.cost is None else {"cost": answer.cost}
    return {**tokens, "total_tokens": sum(tokens.values()), **cost}


class ChatDialect:
    """`/v1/chat/completions`. A stream is `opening`, `tokens` (one event for each), `closing`."""

    def opening(self, answer: MockAnswer) -> bytes:
        return _delta(answer.model, {"role": "assistant", "content": None if answer.calls else ""})

    def tokens(self, answer: MockAnswer) -> tuple[bytes, ...]:
        return (*_words(answer.model, answer.pieces), *_call_pieces(answer.model, answer.calls))

    def closing(self, answer: MockAnswer) -> bytes:
        usage = _event(answer.model, [], usage=_usage(answer)) if answer.usage else b""
        return _delta(answer.model, {}, answer.finish) + usage + b"data: [DONE]\n\n"

    def document(self, answer: MockAnswer) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text if answer.pieces else None}
        if answer.calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": "".join(call.pieces)}}
                for call in answer.calls
            ]
        choice = {"index": 0, "message": message, "finish_reason": answer.finish}
        completion = {"id": _ID, "object": "chat.completion", "created": _CREATED, "model": answer.model}
        return dump({**completion, "choices": [choice], "usage": _usage(answer)})

    def error_event(self, status: int) -> bytes:
        """An error as routing services report it: a number for a code."""
        return b"data: %b\n\n" % dump({"error": {"code": status, "message": "The upstream model gave up."}})

    def error(self, status: int, reason: str, message: str) -> bytes:
        kind, code, text = error_fields(status, reason, message)
        return dump({"error": {"message": text, "type": kind, "param": None, "code": code}})


def embeddings(question: MockQuestion, scene: MockScene) -> bytes:
    """One unit vector per text; equal texts have equal vectors."""
    vectors = [_vector(text, scene.dimensions) for text in question.texts]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    words = sum(len(text.split()) for text in question.texts)
    cost = {} if scene.cost is None else {"cost": scene.cost}
    usage = {"prompt_tokens": words, "total_tokens": words, **cost}
    return dump({"object": "list", "data": data, "model": question.model, "usage": usage})


def _vector(text: str, dimensions: int) -> list[float]:
    bits = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(dimensions)
    length = sum((bit - 127.5) ** 2 for bit in bits) ** 0.5
    return [round((bit - 127.5) / length, 8) for bit in bits]


def models(names: tuple[str, ...]) -> bytes:
    """The list of models."""
    data = [{"id": name, "object": "model", "created": _CREATED, "owned_by": "agentlab"} for name in names]
    return dump({"object": "list", "data": data})


def _named_event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), dump({"type": kind, **fields}))


@lru_cache(maxsize=32)
def _deltas(pieces: tuple[str, ...]) -> tuple[bytes, ...]:
    delta = "content_block_delta"
    return tuple(_named_event(delta, index=0, delta={"type": "text_delta", "text": piece}) for piece in pieces)


def _start(index: int, block: dict[str, Any]) -> bytes:
    return _named_event("content_block_start", index=index, content_block=block)


def _stop(index: int) -> bytes:
    return _named_event("content_block_stop", index=index)


def _message(answer: MockAnswer, content: list[Any], reason: str | None, output_tokens: int) -> dict[str, Any]:
    usage = {"input_tokens": answer.prompt_tokens, "output_tokens": output_tokens}
    shape = {"id": "msg_mock", "type": "message", "role": "assistant", "model": answer.model}
    return {**shape, "content": content, "stop_reason": reason, "stop_sequence": None, "usage": usage}


class MessagesDialect:
    """`/v1/messages`. Blocks follow each other: calls that run in parallel do not alternate."""

    def opening(self, answer: MockAnswer) -> bytes:
        block = _start(0, {"type": "text", "text": ""}) if answer.pieces else b""
        return _named_event("message_start", message=_message(answer, [], None, 0)) + block + _named_event("ping")

    def tokens(self, answer: MockAnswer) -> tuple[bytes, ...]:
        """Text, then tool calls; the first piece of a call brings the start of its block, the last one the end."""
        events = list(_deltas(answer.pieces))
        for index, call in enumerate(answer.calls):
            for number, piece in enumerate(call.pieces):
                block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
                delta = {"type": "input_json_delta", "partial_json": piece}
                event = _named_event("content_block_delta", index=index, delta=delta)
                before = _start(index, block) if number == 0 else b""
                after = _stop(index) if number == len(call.pieces) - 1 else b""
                events.append(before + event + after)
        return tuple(events)

    def closing(self, answer: MockAnswer) -> bytes:
        delta = {"stop_reason": _REASONS[answer.finish], "stop_sequence": None}
        block_end = _stop(0) if answer.pieces else b""
        message_delta = _named_event("message_delta", delta=delta, usage={"output_tokens": answer.tokens})
        return block_end + message_delta + _named_event("message_stop")

    def document(self, answer: MockAnswer) -> bytes:
        content: list[Any] = [{"type": "text", "text": answer.text}] if answer.pieces else []
        for call in answer.calls:
            arguments = json.loads("".join(call.pieces))
            content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": arguments})
        return dump(_message(answer, content, _REASONS[answer.finish], answer.tokens))

    def error_event(self, status: int) -> bytes:
        kind, _, _ = error_fields(status, "", "")
        return _named_event("error", error={"type": kind, "message": "The upstream model gave up."})

    def error(self, status: int, reason: str, message: str) -> bytes:
        """Anthropic's error object; what OpenAI calls a code is a part of the text."""
        kind, code, text = error_fields(status, reason, message)
        return dump({"type": "error", "error": {"type": kind, "message": f"{text} ({code})"}})
