"""Held-out conversations that were learnt from: their score says how well they are remembered, and no more."""

from collections.abc import Sequence
from dataclasses import dataclass

from agentlab.train.conversations import Conversation
from agentlab.train.dataset import normalised, question


@dataclass(frozen=True, slots=True)
class Leak:
    """A held-out conversation and the first one of the training that it is like; lines of their files.

    `exact`: all turns are the same. Otherwise the last question is, but for case and punctuation.
    """

    held_out: int
    train: int
    exact: bool


def leakage(train: Sequence[Conversation], held_out: Sequence[Conversation]) -> list[Leak]:
    """One for each held-out conversation that the training has seen, exact ones before near ones."""
    whole, asked = dict[object, int](), dict[str, int]()
    for conversation in train:
        whole.setdefault(conversation.turns, conversation.line)
        asked.setdefault(normalised(question(conversation, -1)), conversation.line)
    exact, near = list[Leak](), list[Leak]()
    for conversation in held_out:
        last = normalised(question(conversation, -1))
        if conversation.turns in whole:
            exact.append(Leak(conversation.line, whole[conversation.turns], exact=True))
        elif last in asked:
            near.append(Leak(conversation.line, asked[last], exact=False))
    return exact + near
