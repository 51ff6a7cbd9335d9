"""Conversations to learn from: one JSON object with `messages` per line, checked whole before anything is trained.

    {"messages": [{"role": "system", "content": "You are terse."},
                  {"role": "user", "content": "Is it raining?"}, {"role": "assistant", "content": "Yes."}], "id": 7}

The system message may be missing. Beside `messages`, `id` and `tags` are customary; they and any other key are ignored.
A message holds its role and content alone: what else it said (a tool call, reasoning) would silently not be learnt.
Files may come from anybody: lines are bounded, and strict JSON.
"""

import codecs
import hashlib
import json
import os.path
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from agentlab.errors import DataError, MissingFileError

MOST_CONVERSATIONS, MOST_TURNS = 200_000, 512
_LISTED = 30  # problems in a message
_ROLES = ("system", "user", "assistant")
_FORM = (
    "Each line must be "
    '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}; '
    "a system message may come first, then user and assistant alternate."
)
MOST_BYTES, LONGEST_LINE = 512 << 20, 1 << 20
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class ConversationTurn:
    """One message; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """What one line of a file holds: perhaps a system turn, then user and assistant in turns, the assistant last."""

    line: int
    turns: tuple[ConversationTurn, ...]


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
    conversations: list[Conversation] = []
    problems: list[str] = []
    for number, value in read_lines(path, digest.update):
        wrong = [f"{path}:{number}: {problem}" for problem in _problems(value)]
        problems += wrong
        if not wrong:
            turns = tuple(ConversationTurn(message["role"], message["content"]) for message in value["messages"])
            conversations.append(Conversation(number, turns))
        if len(conversations) > MOST_CONVERSATIONS:
            raise DataError(
                f"{path} has more than {MOST_CONVERSATIONS} conversations.", hint="Train on part of the file."
            )
    refuse(problems, path, _FORM)
    if not conversations:
        raise DataError(f"{path} contains no conversations.", hint=_FORM)
    return ConversationFile(path, f"sha256:{digest.hexdigest()}", tuple(conversations))


def refuse(problems: Sequence[str], source: Path | str, hint: str, use: str = "used for training") -> None:
    """Raise a DataError that lists the first problems and counts the others, if there are any."""
    if not problems:
        return
    omitted = [f"... and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
    listed = "\n".join(f"  {line}" for line in (*problems[:_LISTED], *omitted))
    raise DataError(f"{source} cannot be {use}:\n{listed}", hint=hint)


def _problems(value: Any) -> Iterator[str]:
    if isinstance(value, BadLineError):
        yield f"the line {value}"
        return
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list) or not messages:
        yield "`messages` is missing or empty"
        return
    if len(messages) > MOST_TURNS:
        yield f"{len(messages)} messages exceed the limit of {MOST_TURNS}"
        return
    wrong: list[str] = []
    for number, message in enumerate(messages, 1):
        wrong += [f"message {number}: {problem}" for problem in _wrong_in(message)]
    yield from wrong or _disorder([message["role"] for message in messages])


def _wrong_in(message: Any) -> Iterator[str]:
    if not isinstance(message, dict):
        yield "not an object with `role` and `content`"
        return
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        yield f"role is {_value_text(role)}; expected one of {', '.join(_ROLES)}"
    if not isinstance(content, str):
        yield "content is not a string"
    elif not content.strip():
        yield "content is empty"
    elif not is_unicode(content):
        yield "content contains a lone surrogate (half a character)"
    if extra := sorted(message.keys() - {"role", "content"}):
        yield f"unsupported keys besides role and content: {', '.join(map(_value_text, extra[:3]))}"


def _disorder(roles: Sequence[str]) -> Iterator[str]:
    """The first turn that is not whose it should be."""
    first = 1 if roles[0] == "system" else 0
    for index, role in enumerate(roles[first:]):
        due = "assistant" if index % 2 else "user"
        if role != due:
            late = "a system message must come first" if role == "system" else f"it should be {due}"
            yield f"message {index + first + 1}: role is {role}, but {late}"
            return
    if roles[-1] != "assistant":
        yield f"message {len(roles)}: the last message must be the assistant's"


def is_unicode(text: str) -> bool:
    """Whether a text can be written down: JSON may hold half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _value_text(value: Any) -> str:
    return "missing" if value is None else ascii(value)[:40]


class BadLineError(ValueError):
    """A line that is no JSON value; the message says why, as the end of a sentence."""


def read_lines(path: Path, seen: Callable[[bytes], object]) -> Iterator[tuple[int, Any]]:
    """Number (from 1) and JSON value of every line that is not blank; a `BadLineError` in place of a value it has not.

    Only a newline ends a line: other separators, such as U+2028, may stand in a text. `seen`: is given every byte of
    the file, in their order; all of them by the end.

    Raises:
        MissingFileError: there is no such file, or it cannot be read.
        DataError: it is no plain file, compressed, or larger than `MOST_BYTES`.
    """
    if not os.path.exists(path):  # noqa: PTH110 - unlike Path.exists, it does not raise where a folder is closed
        raise MissingFileError(f"No such data file: {path}.", hint="Check the path.")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or device"
        raise DataError(
            f"{path} is {kind}; conversations must be in a regular file.",
            hint="Pass a JSONL file; it is read again when a run is resumed.",
        )
    try:
        with path.open("rb") as file:
            yield from _values(file, path, seen)
    except OSError as error:
        raise MissingFileError(f"Cannot read the data file {path}: {error.strerror}.") from error


def _values(file: IO[bytes], path: Path, seen: Callable[[bytes], object]) -> Iterator[tuple[int, Any]]:
    number = size = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if number == 1 and line.startswith(_GZIP):
            raise DataError(f"{path} is compressed (gzip).", hint="Decompress it first: gunzip --keep FILE")
        seen(line)
        is_whole = len(line) <= LONGEST_LINE
        value: Any = BadLineError(f"is longer than {LONGEST_LINE >> 20} MiB")
        if is_whole and not line.strip():
            value = None
        elif is_whole:
            value = _value(line)
        size += len(line)
        while not line.endswith(b"\n") and (line := file.readline(LONGEST_LINE)):
            seen(line)
            size += len(line)
            if size > MOST_BYTES:
                break
        if size > MOST_BYTES:
            raise DataError(f"{path} is larger than {MOST_BYTES >> 20} MiB.", hint="Train on part of the file.")
        if value is not None:
            yield number, value


def _value(line: bytes) -> Any:
    """The value of a line, or what is wrong with it. `null` is no conversation, and so is what is wrong with it."""
    if line.startswith(codecs.BOM_UTF8):
        return BadLineError("starts with a byte order mark; save the file as UTF-8 without one")
    try:
        value = json.loads(line.decode(), parse_constant=_no_number, parse_int=_integer, object_pairs_hook=_object)
    except UnicodeDecodeError:
        return BadLineError("is not UTF-8")
    except BadLineError as error:
        return error
    except RecursionError:
        return BadLineError("is nested too deeply")
    except ValueError as error:
        return BadLineError(f"is not JSON: {str(error)[:100]}")
    return BadLineError("is null") if value is None else value


def _no_number(name: str) -> NoReturn:
    raise BadLineError(f"is not valid JSON: it contains {name}")


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # a bound of Python's, since the time that this takes is quadratic
        raise BadLineError(f"contains an integer with {len(digits)} digits") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise BadLineError("has a duplicate key in an object")
    return mapping
