"""Reading what a stranger wrote: JSON of which nothing is promised, text of any length. Pure."""

import json
import math
from collections.abc import Mapping
from typing import Any

from agentlab.errors import MalformedReplyError

LONGEST_FINISH = 40  # characters of the reason why an answer stops

_MOST = 2**53
_NOTHING: Mapping[str, Any] = {}


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that a text is. Raises MalformedReplyError if it is none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedReplyError(f"The reply is not JSON: {printable_line(text, 80)!r}.") from None
    if not isinstance(document, dict):
        raise MalformedReplyError("The reply is not a JSON object.")
    return document


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is an object, or else an empty one."""
    return value if isinstance(value, dict) else _NOTHING


def text_of(value: object, part_name: str) -> str:
    """The value if it is text; None counts as empty.

    Raises:
        MalformedReplyError: it is something else, so that a part of the answer would be lost.
    """
    if value is None or isinstance(value, str):
        return value or ""
    raise MalformedReplyError(f"The reply's {part_name} is not text.")


def amount(value: object) -> float | None:
    """A number from 0 to below infinity, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return None
    return value


def count(value: object) -> int | None:
    """A whole number of things, or None; so is one that no float counts exactly, and that nobody can have counted."""
    number = amount(value)
    return None if number is None or number > _MOST else int(number)


def clean(value: object, width: int) -> str:
    """The value as text that can be written. Half a surrogate pair, which JSON can carry, becomes a question mark."""
    return str(value)[:width].encode(errors="replace").decode()


def printable_line(text: str, width: int) -> str:
    """One line of printable text."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * width]).split())
    return line if len(line) <= width else f"{line[:width]}..."
