"""Whether answers mean the same. Pure."""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal
from typing import Any

_SPACE = re.compile(r"\s+")
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3}){1,8}|\d+)(?:\.\d+)?(?:e[-+]?\d{1,3})?", re.ASCII)
_LONGEST_NUMBER = 64  # characters; a longer one is compared as a text
_EXACT = Context(prec=_LONGEST_NUMBER)
_CLOSE = 1e-9  # relative, between numbers that went through a division


def normal(value: Any) -> str:
    """The same text for answers that mean the same, whatever they are to be counted or looked up by.

    Texts by NFKC, case and spaces; numbers by their value, so that 7, 7.0 and "7" agree; the rest as JSON of these.

    Raises:
        RecursionError: it is nested too deeply.
    """
    leaves = _leaves(value)
    return leaves if isinstance(leaves, str) else json.dumps(leaves, sort_keys=True, ensure_ascii=False)


def _leaves(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _leaves(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_leaves(part) for part in value]
    return _leaf(value)


def _leaf(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = _SPACE.sub(" ", unicodedata.normalize("NFKC", str(value))).strip().casefold()
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return text
    number = _EXACT.create_decimal(text.replace(",", ""))
    return format(_EXACT.normalize(number) if number else Decimal(0), "f")


def same_texts(texts: Sequence[str]) -> bool:
    """Whether all are equal but for case, spaces and the last full stop."""
    return len({_SPACE.sub(" ", text).strip().rstrip(".").casefold() for text in texts}) == 1


def same_fields(answer: Any, expected: Any) -> bool:
    """Whether JSON values are equal, whatever the case and the spaces of texts."""
    if isinstance(expected, str):
        return isinstance(answer, str) and answer.casefold().split() == expected.casefold().split()
    if isinstance(expected, list):
        return isinstance(answer, list) and len(answer) == len(expected) and all(map(same_fields, answer, expected))
    return bool(answer == expected)


def same_results(answer: Any, expected: Any) -> bool:
    """Whether two results of a computation are equal: of one type, numbers to a billionth."""
    if isinstance(answer, bool) or isinstance(expected, bool):
        return answer is expected
    if isinstance(answer, int | float) and isinstance(expected, int | float):
        return abs(answer - expected) <= _CLOSE * max(1.0, abs(expected))
    return type(answer) is type(expected) and answer == expected
