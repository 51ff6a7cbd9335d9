"""Anthropic's protocol: messages."""

import json
from functools import lru_cache
from typing import Any

from agentlab.bench.mock.answer import Answer, dump, error_fields

_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def _event(kind: str, **more: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), dump({"type": kind, **more}))


@lru_cache(maxsize=32)
def _words(pieces: tuple[str, ...]) -> tuple[bytes, ...]:
    delta = "content_block_delta"
    return tuple(_event(delta, index=0, delta={"type": "text_delta", "text": piece}) for piece in pieces)


def _start(index: int, block: dict[str, Any]) -> bytes:
    return _event("content_block_start", index=index, content_block=block)


def _stop(index: int) -> bytes:
    return _event("content_block_stop", index=index)


def _message(answer: Answer, content: list[Any], reason: str | None, said: int) -> dict[str, Any]:
    usage = {"input_tokens": answer.prompt_tokens, "output_tokens": said}
    shape = {"id": "msg_mock", "type": "message", "role": "assistant", "model": answer.model}
    return {**shape, "content": content, "stop_reason": reason, "stop_sequence": None, "usage": usage}


class MessagesDialect:
    """`/v1/messages`. Blocks follow each other: calls that run in parallel do not alternate."""

    def opening(self, answer: Answer) -> bytes:
        """The message without content, and a ping."""
        block = _start(0, {"type": "text", "text": ""}) if answer.pieces else b""
        return _event("message_start", message=_message(answer, [], None, 0)) + block + _event("ping")

    def tokens(self, answer: Answer) -> tuple[bytes, ...]:
        """Text, then tool calls; the first piece of a call brings the start of its block, the last one the end."""
        events = list(_words(answer.pieces))
        for index, call in enumerate(answer.calls):
            for number, piece in enumerate(call.pieces):
                block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
                delta = {"type": "input_json_delta", "partial_json": piece}
                event = _event("content_block_delta", index=index, delta=delta)
                before = _start(index, block) if number == 0 else b""
                after = _stop(index) if number == len(call.pieces) - 1 else b""
                events.append(before + event + after)
        return tuple(events)

    def closing(self, answer: Answer) -> bytes:
        """The stop reason and the tokens of the answer."""
        delta = {"stop_reason": _REASONS[answer.finish], "stop_sequence": None}
        end = _event("message_delta", delta=delta, usage={"output_tokens": answer.tokens}) + _event("message_stop")
        return (_stop(0) if answer.pieces else b"") + end

    def document(self, answer: Answer) -> bytes:
        """A message."""
        content: list[Any] = [{"type": "text", "text": answer.text}] if answer.pieces else []
        for call in answer.calls:
            given = json.loads("".join(call.pieces))
            content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": given})
        return dump(_message(answer, content, _REASONS[answer.finish], answer.tokens))

    def error_event(self, status: int) -> bytes:
        """An error within a stream."""
        kind, _, _ = error_fields(status, "", "")
        return _event("error", error={"type": kind, "message": "The upstream model gave up."})

    def error(self, status: int, reason: str, message: str) -> bytes:
        """Anthropic's error object; what OpenAI calls a code is a part of the text."""
        kind, code, text = error_fields(status, reason, message)
        return dump({"type": "error", "error": {"type": kind, "message": f"{text} ({code})"}})
