"""Anthropic's Messages API: what the events of a stream and whole documents mean. Pure.

    message_start         usage of the prompt
    content_block_start   a block begins: text, thinking, or tool_use with its id and name
    content_block_delta   text_delta, thinking_delta, or input_json_delta with a piece of a call's arguments
    message_delta         why the answer stops, and the usage so far
    message_stop          the end
    ping, error           at any time

Kinds of events, blocks and deltas that are not known are passed over, as the API asks of its clients.
"""

import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

from agentlab import errors
from agentlab.errors import MalformedReplyError
from agentlab.llm.providers import faults
from agentlab.llm.providers.parsing import LONGEST_FINISH, clean, count, json_object, mapping, text_of
from agentlab.llm.types import Delta, ToolPiece, Usage

# Why an answer stops, in OpenAI's words. `pause_turn`: the turn was too long for one reply.
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "tool_use": "tool_calls",
}
_PROMPT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class MessageReader:
    """Reads the events of one stream, or the one document that a server sends instead."""

    def __init__(self) -> None:
        self.finished = self.ended = False
        self._calls: dict[int, int] = {}  # index of a content block -> index of its tool call
        self._counted: dict[str, int] = {}

    def event(self, data: str) -> Delta:
        """One event.

        Raises:
            MalformedReplyError: not JSON of the agreed shape. A lost piece would be a wrong answer: none is skipped.
            RemoteError: the event reports an error.
        """
        event = _document(data)
        match event.get("type"):
            case "content_block_delta":
                return self._piece(event)
            case "content_block_start":
                return self._block(event.get("index"), mapping(event.get("content_block")))
            case "message_start":
                return Delta(usage=self._usage(mapping(event.get("message"))))
            case "message_delta":
                return Delta(finish=self._finish(mapping(event.get("delta"))), usage=self._usage(event))
            case "message_stop":
                finish = None if self.finished else "stop"
                self.finished = self.ended = True
                return Delta(finish=finish)
        return Delta()

    def document(self, body: bytes) -> Delta:
        """A whole answer in one document, from a server that does not stream; errors as of `event`."""
        message = _document(body.decode(errors="replace"))
        content = message.get("content")
        if not isinstance(content, list):
            raise MalformedReplyError("The reply has no content.")
        parts = [self._block(index, mapping(block), is_whole=True) for index, block in enumerate(content)]
        return Delta(
            "".join(part.text for part in parts),
            self._finish(message),
            self._usage(message),
            "".join(part.reasoning for part in parts),
            tuple(chain.from_iterable(part.tools for part in parts)),
        )

    def _block(self, index: object, block: Mapping[str, Any], *, is_whole: bool = False) -> Delta:
        """What a block begins with. A streamed call begins with empty arguments, whose pieces follow."""
        match block.get("type"):
            case "text":
                return Delta(text_of(block.get("text"), "text"))
            case "thinking":
                return Delta(reasoning=text_of(block.get("thinking"), "thinking"))
            case "tool_use":
                if not isinstance(index, int) or index in self._calls:
                    raise MalformedReplyError("The reply's content blocks are not numbered uniquely.")
                position = self._calls[index] = len(self._calls)
                arguments = json.dumps(block.get("input") or {}) if is_whole or block.get("input") else ""
                identity, name = text_of(block.get("id"), "tool call id"), text_of(block.get("name"), "tool name")
                return Delta(tools=(ToolPiece(position, identity, name, arguments),))
        return Delta()

    def _piece(self, event: Mapping[str, Any]) -> Delta:
        piece = mapping(event.get("delta"))
        match piece.get("type"):
            case "text_delta":
                return Delta(text_of(piece.get("text"), "text"))
            case "thinking_delta":
                return Delta(reasoning=text_of(piece.get("thinking"), "thinking"))
            case "input_json_delta":
                index = event.get("index")
                position = self._calls.get(index) if isinstance(index, int) else None
                if position is None:
                    raise MalformedReplyError("The reply continues a tool call that never began.")
                arguments = text_of(piece.get("partial_json"), "tool call's arguments")
                return Delta(tools=(ToolPiece(position, arguments=arguments),)) if arguments else Delta()
        return Delta()

    def _finish(self, holder: Mapping[str, Any]) -> str | None:
        reason = holder.get("stop_reason")
        if reason == "refusal":
            raise errors.ContentFilterError("The model refused to answer.")
        if not reason:
            return None
        self.finished = True
        return _FINISH.get(str(reason), clean(reason, LONGEST_FINISH))

    def _usage(self, holder: Mapping[str, Any]) -> Usage | None:
        """The usage so far: counts are totals, and some servers know the prompt's only at the end.

        Until an answer stops, how long it is is not known.
        """
        usage = mapping(holder.get("usage"))
        for key in (*_PROMPT, "output_tokens"):
            self._counted[key] = count(usage.get(key)) or self._counted.get(key, 0)
        if not usage:
            return None
        prompt = sum(self._counted[key] for key in _PROMPT)
        return Usage(prompt or None, self._counted["output_tokens"] if self.finished else None)


def _document(text: str) -> dict[str, Any]:
    document = json_object(text)
    if document.get("type") == "error" or document.get("error"):
        raise faults.reported_error(document.get("error"))
    return document
