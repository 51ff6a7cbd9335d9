"""Lines of JSON between an engine and its worker. `worker.py` describes what they say."""

import json
from collections.abc import Mapping
from typing import Any

# A worker's line carries one token or one error; anything near this size is not ours.
MAX_LINE = 1 << 20


def encode(message: Mapping[str, Any]) -> bytes:
    """One line, ASCII only, so that no character of a text can be mistaken for its end."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The message of one line.

    Raises:
        ValueError: not a JSON object.
    """
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("a message is a JSON object")
    return message
