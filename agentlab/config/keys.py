"""Dotted keys, the written form of a place in a config: `space."training.lr".high` has three parts.

A part that holds a dot, a quote or an equals sign is written as a JSON string.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

Key = tuple[str, ...]

_PLAIN = re.compile(r"""[^\s."=]+(?:[ ]+[^\s."=]+)*""")
_END = re.compile(r"[.=]|$")


def join(parts: Sequence[str]) -> str:
    """The dotted form; `split` is its inverse."""
    return ".".join(part if _PLAIN.fullmatch(part) else json.dumps(part, ensure_ascii=False) for part in parts)


def split(text: str) -> Key:
    """The parts of a dotted key.

    Raises:
        ValueError: an empty part, or a quote that is not closed.
    """
    parts, remainder = split_prefix(text)
    if remainder:
        raise ValueError(f"the key {text!r} has an equals sign outside quotes")
    return parts


def split_prefix(text: str) -> tuple[Key, str]:
    """The parts of the key that `text` starts with, and what follows it: nothing, or an equals sign and more.

    Raises:
        ValueError: an empty part, or a quote that is not closed.
    """
    parts: list[str] = []
    position = 0
    while True:
        part, position = _part(text, position)
        parts.append(part)
        if not text.startswith(".", position):
            return tuple(parts), text[position:]
        position += 1


def child(tree: Any, part: str) -> Any:
    """What a mapping or list holds under one part of a key; None when there is nothing."""
    if isinstance(tree, list):
        return tree[int(part)] if part.isdecimal() and int(part) < len(tree) else None
    return tree.get(part) if isinstance(tree, Mapping) else None


def _find_end(text: str, start: int) -> int:
    end = _END.search(text, start)
    return len(text) if end is None else end.start()


def _part(text: str, start: int) -> tuple[str, int]:
    """One part and the position of the dot, equals sign or end behind it."""
    quoted = len(text) - len(text[start:].lstrip())
    if text.startswith('"', quoted):
        try:
            part, end = json.JSONDecoder().raw_decode(text, quoted)
        except ValueError as error:
            raise ValueError(f"a quote in the key {text!r} is not closed") from error
        stop = _find_end(text, end)
        if text[end:stop].strip():
            raise ValueError(f"the key {text!r} continues after a closing quote; a dot is missing")
        return part, stop
    stop = _find_end(text, start)
    part = text[start:stop].strip()
    if not part or '"' in part:
        raise ValueError(f"the key {text!r} has {'a quote inside a part' if part else 'an empty part'}")
    return part, stop
