"""Patterns and pointers from a config, held against what a model wrote. Pure.

A pattern may take for ever on a few dozen characters, so it gets a limit: one that runs out finds nothing.
"""

import re
from typing import Any

from agentlab.tasks.extract import MOST_TEXT

_SECONDS = 0.5
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def pattern_problem(pattern: str) -> str | None:
    """Why a pattern is none, in words; None when it is one."""
    import regex  # only where there are patterns: it takes a while to load

    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        return f"no regular expression: {error}"
    return None


def found(pattern: str, text: str) -> str | None:
    """What a pattern finds first in the last 65,536 characters of a text: its first group, or the whole match."""
    import regex

    try:
        match = regex.search(pattern, text[-MOST_TEXT:], timeout=_SECONDS)
    except TimeoutError:
        return None
    if match is None:
        return None
    group = match.group(1) if match.re.groups else match.group()
    return None if group is None else str(group)


def pointer_problem(pointer: str) -> str | None:
    """Why a text is no JSON pointer (RFC 6901, section 3); None when it is one."""
    if pointer and not pointer.startswith("/"):
        return "a JSON pointer begins with /, such as /vote"
    if re.search(r"~(?![01])", pointer):
        return "in a JSON pointer ~ stands before 0 (for ~) or 1 (for /)"
    return None


def pointed(value: Any, pointer: str) -> tuple[Any, bool]:
    """What a JSON pointer leads to (RFC 6901, section 4), and whether anything is there."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(value):
            value = value[int(key)]
        else:
            return None, False
    return value, True
