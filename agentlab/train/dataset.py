"""Which conversations are trained on, and which are held out."""

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from agentlab.train.conversations import Conversation
from agentlab.train.masks import Example


@dataclass(frozen=True, slots=True)
class TrainingSplit:
    """What is learnt from, and what the learning is scored on."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]


def hold_out(
    conversations: Sequence[Conversation], fraction: float, seed: int
) -> tuple[tuple[Conversation, ...], tuple[Conversation, ...]]:
    """(training, held out): about a fraction of the conversations, both in their order.

    Conversations whose first question is the same, duplicates among them, stay together. Who is held out depends on
    the questions and the seed and not on the order of the file; more conversations move few to the other side.
    With a fraction above 0 and two different first questions, somebody is held out, and somebody is trained on.
    """
    groups: dict[str, list[Conversation]] = defaultdict(list)
    for conversation in conversations:
        groups[normalise_text(question(conversation, 0))].append(conversation)
    keys = sorted(groups, key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest())
    quota, chosen = round(fraction * len(conversations)), set[str]()
    for key in keys[:-1]:  # somebody has to be trained on
        if len(groups[key]) <= quota:
            chosen.add(key)
            quota -= len(groups[key])
    if fraction > 0 and not chosen and len(keys) > 1:
        chosen.add(min(keys, key=lambda key: len(groups[key])))
    sides: tuple[list[Conversation], list[Conversation]] = ([], [])
    for conversation in conversations:
        sides[normalise_text(question(conversation, 0)) in chosen].append(conversation)
    return tuple(sides[0]), tuple(sides[1])


def question(conversation: Conversation, index: int) -> str:
    """What the user says in the first (0) or the last (-1) turn of theirs."""
    return [turn.content for turn in conversation.turns if turn.role == "user"][index]


def normalise_text(text: str) -> str:
    """The words of a text without case and punctuation; a text without words stays as it is."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(letter if letter.isalnum() else " " for letter in folded).split()
    return " ".join(words) or text.strip()
