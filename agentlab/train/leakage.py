"""Held-out conversations that were learnt from: their score says how well they are remembered, and no more."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentlab.train.conversations import Conversation
from agentlab.train.dataset import normalised


@dataclass(frozen=True, slots=True)
class Leak:
    """A held-out conversation and the first one of the training that it shares most with; lines of their files.

    `turns` from the first question on are the same but for case and punctuation, whatever the system message. `exact`:
    all of both are, to the letter.
    """

    held_out: int
    train: int
    turns: int
    exact: bool


def leakage(train: Sequence[Conversation], held_out: Sequence[Conversation]) -> list[Leak]:
    """One for each held-out conversation of which a question was learnt in its context, exact ones first.

    The context of a question is all that was said before it: "And then?" is asked in many conversations.
    """
    whole, seen = dict[object, int](), dict[bytes, int]()
    for conversation in train:
        whole.setdefault(conversation.turns, conversation.line)
        for beginning in _beginnings(conversation):
            seen.setdefault(beginning, conversation.line)
    leaks = list[Leak]()
    for conversation in held_out:
        turns, line = 0, 0
        for count, beginning in enumerate(_beginnings(conversation), 1):
            if beginning not in seen:
                break
            turns, line = count, seen[beginning]
        exact = whole.get(conversation.turns)
        if turns:
            leaks.append(Leak(conversation.line, exact or line, turns, exact=exact is not None))
    return sorted(leaks, key=lambda leak: not leak.exact)


def _beginnings(conversation: Conversation) -> Iterator[bytes]:
    """A digest of the first question, of it and its answer, of these and the next question, and so on."""
    digest = hashlib.sha256()
    for turn in conversation.turns:
        if turn.role != "system":
            digest.update(hashlib.sha256(normalised(turn.content).encode()).digest())
            yield digest.digest()
