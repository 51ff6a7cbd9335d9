"""Who answers when an agent has its turn. Many turns are asked for at once, and a failing one harms no other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentlab.debate.config import Confidence
from agentlab.llm.types import Message


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A turn that is wanted.

    A speaker that can tell the likelihood of texts ends what it says with `Answer:` and the likeliest
    choice, where there are `choices`.
    """

    id: str  # unique in its run
    agent: str
    dialogue: str  # whose memory of what was read before may be used, and is kept for the next turn; empty for nobody's
    messages: tuple[Message, ...]  # the chat so far; the last one is the user's
    choices: tuple[str, ...] = ()  # texts to choose from; empty where the answer is free
    max_tokens: int = 48  # of what is said before the choice; 0 where a choice alone is wanted
    temperature: float = 0.0  # 0 for the likeliest text
    seed: int = 0
    schema: Mapping[str, Any] | None = None  # a JSON schema for what is said, if it has to follow one
    confidences: frozenset[Confidence] = frozenset()  # the kinds that are wanted, of those that the speaker knows


@dataclass(frozen=True, slots=True)
class TurnReply:
    """An answer, or in `error` why there is none; `choice` is the likeliest of `TurnRequest.choices`, if known.

    With `overflow` prompt and answer do not fit the context; with `formless` no answer followed the schema.
    """

    text: str = ""
    choice: str | None = None
    confidences: Mapping[Confidence, float] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0
    error: str = ""
    overflow: bool = False
    formless: bool = False


class Speakers(Protocol):
    """Agents of one kind."""

    def answer(self, requests: Sequence[TurnRequest]) -> list[TurnReply]:
        """The turns, in their order. What is computed may depend on which of them are asked for together."""

    def forget(self) -> None:
        """The debates are over: let go of what was remembered of them."""


class Panel:
    """All agents of a debate, whatever their kind, by name. See `Speakers`."""

    def __init__(self, speakers: Mapping[str, Speakers]) -> None:
        self._speakers = speakers
        self._kinds = list({id(kind): kind for kind in speakers.values()}.values())

    def answer(self, requests: Sequence[TurnRequest]) -> list[TurnReply]:
        replies: dict[str, TurnReply] = {}
        for kind in self._kinds:
            if mine := [request for request in requests if self._speakers[request.agent] is kind]:
                replies.update(zip((request.id for request in mine), kind.answer(mine), strict=True))
        return [replies[request.id] for request in requests]

    def forget(self) -> None:
        for kind in self._kinds:
            kind.forget()
