"""The normal form of a vote: equal for votes that mean the same. Pure."""

import json
import re
import unicodedata
from collections.abc import Mapping
from decimal import Context, Decimal
from typing import Any

_SPACE = re.compile(r"\s+")
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3}){1,8}|\d+)(?:\.\d+)?(?:e[-+]?\d{1,3})?", re.ASCII)
_LONGEST_NUMBER = 64  # characters; a longer one is compared as a text
_EXACT = Context(prec=_LONGEST_NUMBER)


def normal(value: Any) -> str:
    """Texts by NFKC, case and spaces; numbers by their value, so that 7, 7.0 and "7" agree; the rest as JSON of these.

    Raises:
        RecursionError: it is nested too deeply.
    """
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(_leaves(value), sort_keys=True, ensure_ascii=False)
    return _leaf(value)


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
