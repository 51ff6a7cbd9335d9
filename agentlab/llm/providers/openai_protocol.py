"""OpenAI's chat completions: what the events of a stream and whole documents mean. Pure.

What comes in is written by a stranger: nothing is taken for granted, every text is bounded.
"""

import json
from collections.abc import Mapping
from typing import Any

from agentlab import errors
from agentlab.errors import MalformedReplyError
from agentlab.llm.providers import faults
from agentlab.llm.providers.untrusted import LONGEST_FINISH, amount, clean, count, json_object, mapping, text_of
from agentlab.llm.types import Delta, ToolPiece, Usage

_DONE = "[DONE]"


class ChatReader:
    """Reads the events of one stream, or the one document that a server sends instead."""

    def __init__(self) -> None:
        self.finished = self.ended = False
        self._ids: list[str] = []  # of the tool calls so far
        self._places: dict[int, int] = {}  # the server's index of a call -> ours

    def event(self, data: str) -> Delta:
        """One event.

        Raises:
            MalformedReplyError: not JSON of the agreed shape. A lost piece would be a wrong answer: none is skipped.
            RemoteError: the event reports an error.
        """
        if data.strip() == _DONE:
            delta = Delta(finish=None if self.finished else "stop")
            self.finished = self.ended = True
            return delta
        document = _document(data)
        choice = _first_choice(document)
        return self._delta(mapping(choice.get("delta")), choice, document)

    def document(self, body: bytes) -> Delta:
        """A whole answer in one document, from a server that does not stream; errors as of `event`."""
        document = _document(body.decode(errors="replace"))
        choice = _first_choice(document)
        if not choice:
            raise MalformedReplyError("The reply holds no choices.")
        return self._delta(mapping(choice.get("message")), choice, document)

    def _delta(self, said: Mapping[str, Any], choice: Mapping[str, Any], document: Mapping[str, Any]) -> Delta:
        if said.get("refusal"):
            raise errors.ContentFilterError("The model refuses to answer.")
        content, calls, finish = said.get("content"), said.get("tool_calls"), choice.get("finish_reason")
        usage, thought = document.get("usage"), said.get("reasoning") or said.get("reasoning_content")
        if finish:
            finish = _finish(finish)
            self.finished = True
        return Delta(
            content if isinstance(content, str) else _content(content),
            finish or None,
            _usage(usage) if usage else None,
            thought if isinstance(thought, str) else "",  # in another shape it is no loss to the answer
            self._pieces(calls) if calls else (),
        )

    def _pieces(self, calls: object) -> tuple[ToolPiece, ...]:
        if not isinstance(calls, list):
            raise MalformedReplyError("The reply's tool calls are not a list.")
        return tuple(self._piece(mapping(call)) for call in calls)

    def _piece(self, call: Mapping[str, Any]) -> ToolPiece:
        function = mapping(call.get("function"))
        identity, name = text_of(call.get("id"), "tool call id"), text_of(function.get("name"), "tool name")
        arguments = function.get("arguments")
        if isinstance(arguments, dict):  # as some servers send them
            arguments = json.dumps(arguments)
        calls, place = len(self._ids), self._place(call.get("index"), identity)
        if place == calls:  # its first piece: who calls the tool has to name the call, even if the server does not
            identity = identity or f"call_{place}"
        return ToolPiece(place, identity, name, text_of(arguments, "tool call's arguments"))

    def _place(self, index: object, identity: str) -> int:
        """Our index of a call. Some servers leave theirs out, or give each call the same: then the id tells."""
        theirs = index if isinstance(index, int) else -1
        place = self._places.get(theirs)
        if place is None or (identity and self._ids[place] not in ("", identity)):
            place = self._places[theirs] = len(self._ids)
            self._ids.append(identity)
        return place


def _document(text: str) -> dict[str, Any]:
    document = json_object(text)
    if document.get("error"):
        raise faults.reported(document["error"])
    return document


def _first_choice(document: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = document.get("choices")
    if choices is not None and not isinstance(choices, list):
        raise MalformedReplyError("The reply's choices are not a list.")
    return mapping(choices[0]) if choices else {}


def _content(content: object) -> str:
    if isinstance(content, list):  # parts, as some servers send them
        return "".join(text_of(mapping(part).get("text"), "content") for part in content)
    return text_of(content, "content")


def _finish(reason: object) -> str:
    if reason == "content_filter":
        raise errors.ContentFilterError("The provider's filter stopped the answer.")
    if reason == "error":
        raise errors.ServerFaultError("The provider gave up within the answer.")
    return clean(reason, LONGEST_FINISH)


def _usage(reported: object) -> Usage:
    usage = mapping(reported)
    return Usage(
        count(usage.get("prompt_tokens")),
        count(usage.get("completion_tokens")),
        amount(usage.get("cost")) or None,  # some endpoints report 0 for what they do not know
    )
