"""Which variables of an environment hold secrets, and what of their values can be told from ordinary text. Pure but
for one look into agentlab's own files.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

# Variables whose values are secrets, by name; a tokenizer and a number of tokens are none.
_NAME = re.compile(
    r"(?i)(api_?key|(^|_)(key|pass|auth|jwt|cookie)$|_(pwd|pat)$|token(?!iz)|secret|passw(or)?d|passphrase|credential"
    r"|authorization|connection_?string)"
)
_COUNT_NAME = re.compile(
    r"(?i)((^|_)(max|min|num|n|new|total|input|output|prompt|completion|context)_(\w+_)?tokens$|tokens_(per|limit|max))"
)
_NUMBER = re.compile(r"[+-]?\d[\d.,_]*")
# a key or token is never a plain number
_NUMERIC = re.compile(r"(?i)(secret|passw(or)?d|(^|_)pass$|_pwd$|passphrase|credential)")
# Shapes of common keys, for values that never were in the environment (a key pasted into the command line).
SHAPE = re.compile(
    r"""(?x)
    \b(?: sk-[A-Za-z0-9_-]{16,} | hf_[A-Za-z0-9]{16,} | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_[A-Za-z0-9_]{20,}
        | AKIA[0-9A-Z]{16} | xox[abpr]-[A-Za-z0-9-]{10,} )
    | (?<=Bearer\ )[A-Za-z0-9._~+/=-]{12,}
    | (?<=://)[^\s:/@"]*:[^\s/"]+(?=@)
    """
)
SHORTEST = 6  # a shorter value would mask ordinary words
# One or two words; more are a passphrase, and a longer one is a key that happens to have no digit.
_WORD = re.compile(r"[A-Za-z]{1,15}(?:[._-][A-Za-z]{1,15})?[._-]?\d{0,4}")
_TOKEN = re.compile(r"[\w.-]{1,32}")  # what a key, a name or a word of a config may look like; longer ones are keys


def has_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret."""
    return bool(_NAME.search(name)) and not _COUNT_NAME.search(name)


def is_word(value: str) -> bool:
    """Whether a secret looks like a word or name, so that it may stand somewhere without being meant."""
    return _WORD.fullmatch(value) is not None


def secrets_of(env: Mapping[str, str]) -> Iterator[str]:
    """The secret values of an environment that are worth hiding.

    Left out are short ones, numbers that no password is made of, and what agentlab itself says: with
    DB_PASSWORD=default, to mask each "default" would hide nothing and ruin every config.
    """
    for name, raw in env.items():
        value = raw.strip()
        if len(value) < SHORTEST or not has_secret_name(name) or not any(map(str.isalnum, value)):
            continue
        if _NUMBER.fullmatch(value) and not _NUMERIC.search(name):
            continue
        if not (_TOKEN.fullmatch(value) and _is_ours(value)):
            yield value


def holds_secret(name: str, value: str, env: Mapping[str, str]) -> bool:
    """Whether a variable is secret: by its name, by the shape of its value, or because a secret one says the same."""
    if has_secret_name(name) or SHAPE.search(value):
        return True
    return any(value.strip() == secret if is_word(secret) else secret in value for secret in secrets_of(env))


@cache
def _is_ours(value: str) -> bool:
    """Whether agentlab's sources and presets use this text as a word: a key, a choice, a model's name."""
    return value in _own_text() and re.search(rf"(?<![\w.-]){re.escape(value)}(?![\w-])", _own_text()) is not None


@cache
def _own_text() -> str:
    package = Path(__file__).resolve().parent.parent
    roots = (package, package.parent / "cli", package.parent / "configs")
    files = (path for root in roots for ending in ("py", "yaml") for path in sorted(root.rglob(f"*.{ending}")))
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)
