"""The lines of a JSONL file that somebody sent: bounded, strict JSON, each with its number or what is wrong with it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from agentlab.errors import DataError, MissingFileError

MOST_BYTES, LONGEST_LINE = 512 << 20, 1 << 20


class BadLineError(ValueError):
    """A line that is no JSON value; the message says why, as the end of a sentence."""


def read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Number (from 1) and JSON value of every line that is not blank; a `BadLineError` in place of a value it has not.

    Only a newline ends a line: other separators, such as U+2028, may stand in a text.

    Raises:
        MissingFileError: there is no such file, or it cannot be read.
        DataError: it is larger than `MOST_BYTES`.
    """
    if not path.is_file():
        raise MissingFileError(f"There is no data file {path}.", hint="Check the path.")
    try:
        with path.open("rb") as file:
            yield from _values(file, path)
    except OSError as error:
        raise MissingFileError(f"The data file {path} cannot be read: {error.strerror}.") from error


def _values(file: IO[bytes], path: Path) -> Iterator[tuple[int, Any]]:
    number = size = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        whole = len(line) <= LONGEST_LINE
        value: Any = BadLineError(f"is longer than {LONGEST_LINE >> 20} MiB")
        if whole and not line.strip():
            value = None
        elif whole:
            value = _value(line)
        size += len(line)
        while not line.endswith(b"\n") and (line := file.readline(LONGEST_LINE)):
            size += len(line)
            if size > MOST_BYTES:
                break
        if size > MOST_BYTES:
            raise DataError(f"{path} is larger than {MOST_BYTES >> 20} MiB.", hint="Train on a part of it.")
        if value is not None:
            yield number, value


def _value(line: bytes) -> Any:
    """The value of a line, or what is wrong with it. `null` is no conversation, and so is what is wrong with it."""
    try:
        value = json.loads(line.decode(), parse_constant=_no_number, object_pairs_hook=_object)
    except UnicodeDecodeError:
        return BadLineError("is not UTF-8")
    except BadLineError as error:
        return error
    except RecursionError:
        return BadLineError("is nested too deep")
    except ValueError as error:
        return BadLineError(f"is not JSON: {str(error)[:100]}")
    return BadLineError("is null") if value is None else value


def _no_number(name: str) -> NoReturn:
    raise BadLineError(f"is not JSON: it holds {name}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadLineError("has a key twice in one object")
    return found
