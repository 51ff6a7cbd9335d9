"""Secrets never leave the process: every text that is written or shown passes through `Redactor.scrub`."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

MASK = "[redacted]"

# Variables whose values are secrets, by name; a tokenizer and a number of tokens are none.
_SECRET_NAME = re.compile(r"(?i)(api_?key|(^|_)key$|token(?!iz)|secret|passw(or)?d|credential)")
_COUNT_NAME = re.compile(
    r"(?i)((^|_)(max|min|num|n|new|total|input|output|prompt|completion|context)_(\w+_)?tokens$|tokens_(per|limit|max))"
)
_NUMBER = re.compile(r"[+-]?\d[\d.,_]*")
_NUMERIC_SECRET = re.compile(r"(?i)(secret|passw(or)?d|credential)")  # a key or token is never a plain number
# Shapes of common keys, for values that never were in the environment (a key pasted into the command line).
_KEY_SHAPE = re.compile(
    r"""(?x)
    \b(?: sk-[A-Za-z0-9_-]{16,} | hf_[A-Za-z0-9]{16,} | gh[pousr]_[A-Za-z0-9]{20,} | AKIA[0-9A-Z]{16}
        | xox[abpr]-[A-Za-z0-9-]{10,} )
    | (?<=Bearer\ )[A-Za-z0-9._~+/=-]{12,}
    """
)
_SHORTEST = 6  # a shorter value would mask ordinary words


class Redactor:
    """Knows the secret values of an environment and the shapes of common keys."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({s for s in secrets if len(s) >= _SHORTEST}, key=len, reverse=True)
        self._known = re.compile("|".join(re.escape(s) for s in known)) if known else None

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "Redactor":
        """All variables whose name says that they are secret."""
        return cls(value.strip() for name, value in env.items() if _is_secret(name, value.strip()))

    def scrub(self, text: str) -> str:
        """The text with every secret masked."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _KEY_SHAPE.sub(MASK, text)

    def scrub_tree(self, value: Any) -> Any:
        """`scrub` on every string inside plain data."""
        if isinstance(value, str):
            return self.scrub(value)
        if isinstance(value, Mapping):
            return {self.scrub_tree(key): self.scrub_tree(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.scrub_tree(item) for item in value]
        return value


def _is_secret(name: str, value: str) -> bool:
    """Whether a variable holds a secret. Masking a plain number would mask it in every answer and figure as well."""
    if not _SECRET_NAME.search(name) or _COUNT_NAME.search(name):
        return False
    return not _NUMBER.fullmatch(value) or _NUMERIC_SECRET.search(name) is not None
