"""Conversations to learn from: one JSON object with `messages` per line, checked whole before anything is trained.

    {"messages": [{"role": "system", "content": "You are terse."},
                  {"role": "user", "content": "Is it raining?"}, {"role": "assistant", "content": "Yes."}], "id": 7}

The system message may be missing. Beside `messages`, `id` and `tags` are customary; they and any other key are ignored.
A message holds its role and content alone: what else it said (a tool call, reasoning) would silently not be learnt.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab.errors import DataError
from agentlab.train.jsonl import BadLineError, read_lines

MOST_CONVERSATIONS, MOST_TURNS = 200_000, 512
_LISTED = 30  # problems in a message
_ROLES = ("system", "user", "assistant")
_FORM = (
    'A line is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}; '
    "a system message may come first, then user and assistant alternate."
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One message; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """What one line of a file holds: perhaps a system turn, then user and assistant in turns, the assistant last."""

    line: int
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class ConversationFile:
    """All conversations of a file, in its order, and the SHA-256 of the bytes that they were read from."""

    path: Path
    sha256: str
    conversations: tuple[Conversation, ...]


def read_conversations(path: Path) -> ConversationFile:
    """Read a file, once. Duplicates are kept: the report on the data counts them.

    Raises:
        MissingFileError: there is no such file.
        DataError: what is wrong with it, every problem with `file:line`.
    """
    digest = hashlib.sha256()
    found: list[Conversation] = []
    problems: list[str] = []
    for number, value in read_lines(path, digest.update):
        wrong = [f"{path}:{number}: {problem}" for problem in _problems(value)]
        problems += wrong
        if not wrong:
            turns = tuple(Turn(message["role"], message["content"]) for message in value["messages"])
            found.append(Conversation(number, turns))
        if len(found) > MOST_CONVERSATIONS:
            raise DataError(f"{path} has more than {MOST_CONVERSATIONS} conversations.", hint="Train on a part of it.")
    refuse(problems, path, _FORM)
    if not found:
        raise DataError(f"{path} holds no conversation.", hint=_FORM)
    return ConversationFile(path, f"sha256:{digest.hexdigest()}", tuple(found))


def refuse(problems: Sequence[str], path: Path, hint: str) -> None:
    """Nothing, when there are no problems.

    Raises:
        DataError: it lists the first of them, and how many more there are.
    """
    if not problems:
        return
    more = [f"... and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
    listed = "\n".join(f"  {line}" for line in (*problems[:_LISTED], *more))
    raise DataError(f"{path} cannot be learnt from:\n{listed}", hint=hint)


def _problems(value: Any) -> Iterator[str]:
    """What is wrong with a line."""
    if isinstance(value, BadLineError):
        yield f"the line {value}"
        return
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list) or not messages:
        yield "there are no `messages`"
        return
    if len(messages) > MOST_TURNS:
        yield f"there are {len(messages)} messages, and at most {MOST_TURNS} are taken"
        return
    wrong = [f"message {n}: {problem}" for n, each in enumerate(messages, 1) for problem in _wrong_in(each)]
    yield from wrong or _disorder([message["role"] for message in messages])


def _wrong_in(message: Any) -> Iterator[str]:
    if not isinstance(message, dict):
        yield "it is no object with `role` and `content`"
        return
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        yield f"the role is {_shown(role)}, not one of {', '.join(_ROLES)}"
    if not isinstance(content, str):
        yield "the content is no text"
    elif not content.strip():
        yield "the content is empty"
    elif not _is_unicode(content):
        yield "the content holds half of a character (a lone surrogate)"
    if extra := sorted(message.keys() - {"role", "content"}):
        yield f"it holds {', '.join(map(_shown, extra[:3]))} beside role and content, which cannot be learnt"


def _disorder(roles: Sequence[str]) -> Iterator[str]:
    """The first turn that is not whose it should be."""
    first = 1 if roles[0] == "system" else 0
    for index, role in enumerate(roles[first:]):
        due = "assistant" if index % 2 else "user"
        if role != due:
            late = "a system message has to be the first" if role == "system" else f"it is the {due}'s turn"
            yield f"message {index + first + 1}: the role is {role}, but {late}"
            return
    if roles[-1] != "assistant":
        yield f"message {len(roles)}: the last turn has to be the assistant's"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    return "missing" if value is None else ascii(value)[:40]
