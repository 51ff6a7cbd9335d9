"""Lines of JSON between a process and its workers. Each worker's module describes what they say."""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

# A worker's line carries a token, a result or an error; anything near this size is not ours.
MAX_LINE = 1 << 20


def encode(message: Mapping[str, Any]) -> bytes:
    """One line, ASCII only, so that no character of a text can be mistaken for its end.

    Raises:
        ValueError: it holds NaN or an infinity, which JSON has no word for.
        TypeError: it holds something that is not plain data.
    """
    return _ENCODER.encode(message).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The message of one line; a ValueError if it is no JSON object, or holds NaN or an infinity."""
    message = _DECODER.decode(line.decode())
    if not isinstance(message, dict):
        raise ValueError("a message must be a JSON object")
    return message


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# made once: `json.dumps` and `json.loads` make one per call, which costs more than the line of a token
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_DECODER = json.JSONDecoder(parse_constant=_refuse)
