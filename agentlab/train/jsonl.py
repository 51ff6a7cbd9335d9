"""The lines of a JSONL file that somebody sent: bounded, strict JSON, each with its number or what is wrong with it."""

import codecs
import json
import os.path
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from agentlab.errors import DataError, MissingFileError

MOST_BYTES, LONGEST_LINE = 512 << 20, 1 << 20
_GZIP = b"\x1f\x8b"


class BadLineError(ValueError):
    """A line that is no JSON value; the message says why, as the end of a sentence."""


def read_lines(path: Path, seen: Callable[[bytes], object]) -> Iterator[tuple[int, Any]]:
    """Number (from 1) and JSON value of every line that is not blank; a `BadLineError` in place of a value it has not.

    Only a newline ends a line: other separators, such as U+2028, may stand in a text.

    Args:
        path: of the file.
        seen: is given every byte of the file, in their order; all of them by the end.

    Raises:
        MissingFileError: there is no such file, or it cannot be read.
        DataError: it is no plain file, compressed, or larger than `MOST_BYTES`.
    """
    if not os.path.exists(path):  # noqa: PTH110 - unlike Path.exists, it does not raise where a folder is closed
        raise MissingFileError(f"There is no data file {path}.", hint="Check the path.")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or device"
        raise DataError(
            f"{path} is {kind}, and conversations are read from a plain file.",
            hint="Name a JSONL file: it is read again when a run is resumed.",
        )
    try:
        with path.open("rb") as file:
            yield from _values(file, path, seen)
    except OSError as error:
        raise MissingFileError(f"The data file {path} cannot be read: {error.strerror}.") from error


def _values(file: IO[bytes], path: Path, seen: Callable[[bytes], object]) -> Iterator[tuple[int, Any]]:
    number = size = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if number == 1 and line.startswith(_GZIP):
            raise DataError(f"{path} is compressed (gzip).", hint="Unpack it first: gunzip --keep FILE")
        seen(line)
        whole = len(line) <= LONGEST_LINE
        value: Any = BadLineError(f"is longer than {LONGEST_LINE >> 20} MiB")
        if whole and not line.strip():
            value = None
        elif whole:
            value = _value(line)
        size += len(line)
        while not line.endswith(b"\n") and (line := file.readline(LONGEST_LINE)):
            seen(line)
            size += len(line)
            if size > MOST_BYTES:
                break
        if size > MOST_BYTES:
            raise DataError(f"{path} is larger than {MOST_BYTES >> 20} MiB.", hint="Train on a part of it.")
        if value is not None:
            yield number, value


def _value(line: bytes) -> Any:
    """The value of a line, or what is wrong with it. `null` is no conversation, and so is what is wrong with it."""
    if line.startswith(codecs.BOM_UTF8):
        return BadLineError("begins with a byte order mark; save the file as UTF-8 without one")
    try:
        value = json.loads(line.decode(), parse_constant=_no_number, parse_int=_integer, object_pairs_hook=_object)
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


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # a bound of Python's, since the time that this takes is quadratic
        raise BadLineError(f"holds an integer of {len(digits)} digits") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadLineError("has a key twice in one object")
    return found
