"""The one gate for what leaves: every text that is written, shown or sent passes through a `Redactor`.

It masks at two strengths. What cannot stand anywhere by chance (the keys that a config sends, values that look random,
common shapes of keys) is masked everywhere. What may as well be ordinary words is masked for readers alone, never in
what a run reads back: a password "blue whale" must not change a question about blue whales.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from agentlab.config.secrets import (
    OPEN_LENGTH,
    SHAPE,
    SHAPE_CHARACTERS,
    SHAPE_STARTS,
    SHORTEST,
    URL_PASSWORD,
    open_shape,
    secrets_of,
)
from agentlab.config.workspace import Workspace
from agentlab.errors import ConfigError
from agentlab.files import open_file

if TYPE_CHECKING:
    from agentlab.runs.document import Block

MASK = "[redacted]"

_HINT = "Use another value in the config, or unset the variable if its value is not a secret."
_LARGEST_FILE, _LONGEST_PATH = 64 << 20, 4096
_CONTEXT = 16  # characters that decide, from before a piece, whether a secret begins with it
# Text that is all punctuation and literals of JSON is structure: to mask it would make a file unreadable.
_STRUCTURE = re.compile(r"true|false|null|[\d\W_]")


class Redactor:
    """Knows the secret values of an environment and the shapes of common keys."""

    def __init__(self, secrets: Iterable[str] = (), suspects: Iterable[str] = ()) -> None:
        """`secrets` are masked wherever they stand; `suspects` may be ordinary words, and are masked for readers."""
        values = {value: "" for value in secrets if len(value) >= SHORTEST}
        self._variables: Mapping[str, str] = values
        self._literals = sorted(values, key=len, reverse=True)
        self._certain = _any_of(self._literals)
        coded = (json.dumps(value, ensure_ascii=False)[1:-1] for value in self._literals if _STRUCTURE.sub("", value))
        self._coded = _any_of(coded)
        words = sorted({word for word in suspects if len(word) >= SHORTEST}, key=len, reverse=True)
        alternatives = "|".join(map(re.escape, words))
        self._suspect = re.compile(rf"(?<![\w./-])(?:{alternatives})(?![\w/-]|\.\w)") if words else None

    @classmethod
    def of(cls, env: Mapping[str, str], keys: Collection[str] = ()) -> "Redactor":
        """What an environment holds. `keys` are the variables that a config sends as keys, whatever their names."""
        environment_secrets = secrets_of(env, keys)
        redactor = cls(environment_secrets.certain, environment_secrets.suspect)
        redactor._variables = environment_secrets.certain
        return redactor

    def variable_in(self, text: str) -> str | None:
        return next((name for value, name in self._variables.items() if value in text), None)

    # -- for what is read back ------------------------------------------------------------------------------------

    def mask(self, text: str) -> str:
        """A text with what cannot be but a secret masked."""
        return self._certain.sub(MASK, text) if _may_hold(self._literals, text) else text

    def mask_tree(self, value: Any) -> Any:
        return _map_texts(value, self.mask)

    def mask_file(self, name: str, text: str) -> str:
        """A file's text with its secrets masked; what reads JSON and YAML still can."""
        if not name.endswith((".json", ".jsonl", ".yaml", ".yml")):
            return self.mask(text)
        return self._coded.sub(MASK, text)

    # -- for readers ----------------------------------------------------------------------------------------------

    def scrub(self, text: str) -> str:
        """A text for a reader, with everything masked that may be a secret."""
        if self._suspect is not None:
            text = self._suspect.sub(MASK, text)
        return URL_PASSWORD.sub(MASK, self.mask(text))

    def scrub_blocks(self, blocks: "Sequence[Block]") -> "list[Block]":
        """What a reader sees with its secrets masked, before markup is put around it."""
        return [self._scrub_block(block) for block in blocks]

    def _scrub_block(self, block: "Block") -> "Block":
        parts = {part.name: _map_texts(getattr(block, part.name), self.scrub) for part in fields(block)}
        return replace(block, **parts)

    def stream(self) -> "StreamMask":
        return StreamMask(self._certain, self._literals)


class StreamMask:
    """Masks one text that comes in pieces: joined, they are what `Redactor.mask` makes of the whole.

    The end of a piece is held back while it may be the beginning of a secret, and no longer; so is the first half of a
    surrogate pair, which JSON can carry alone. A half without the other can be neither written nor sent on.
    """

    def __init__(self, certain: re.Pattern[str], literals: Sequence[str]) -> None:
        """`certain` finds secrets, `literals` are those of them that are no shapes."""
        self._certain, self._literals = certain, literals
        self._before = ""  # the end of what is out, as it was
        self._pending = ""
        self._half = ""  # of a surrogate pair

    def piece(self, text: str) -> str:
        """What can be shown once this piece is there; it may be nothing."""
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        if not text:
            return ""
        return self._advance(_pair_surrogates(text), self._first_open)

    def end(self) -> str:
        """What is still held back: no more comes."""
        return self._advance(_pair_surrogates(self._half), lambda text, _: len(text))

    def _advance(self, piece: str, first_open: Callable[[str, int], int]) -> str:
        text, position = self._before + self._pending + piece, len(self._before)
        parts: list[str] = []
        open_start = first_open(text, position)
        if _may_hold(self._literals, text):
            while (match := self._certain.search(text, position)) and match.start() < open_start:
                parts += (text[position : match.start()], MASK)
                position = match.end()
                if open_start < position:
                    open_start = first_open(text, position)
        parts.append(text[position:open_start])
        self._before, self._pending = text[max(0, open_start - _CONTEXT) : open_start], text[open_start:]
        return "".join(parts)

    def _first_open(self, text: str, position: int) -> int:
        """Where the end of the text begins that may be the beginning of a secret."""
        first = len(text)
        start = max(position, first - OPEN_LENGTH, len(text.rstrip(SHAPE_CHARACTERS)))
        if start < first and (shape := open_shape().search(text, start)):
            first = shape.start()
        for literal in self._literals:
            # the lengths at which the literal's last character is the text's, longest first
            length = literal.rfind(text[-1], 0, min(len(literal) - 1, len(text) - position)) + 1
            while length > len(text) - first:
                if text.endswith(literal[:length]):
                    first = len(text) - length
                    break
                length = literal.rfind(text[-1], 0, length - 1) + 1
        return first


def _pair_surrogates(text: str) -> str:
    """A text whose surrogate pairs are characters, and halves of them question marks."""
    try:
        text.encode()
    except UnicodeEncodeError:
        paired = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return paired.encode(errors="replace").decode()
    return text


def _may_hold(literals: Iterable[str], text: str) -> bool:
    """Whether a text may hold one of these or a shape: quick, as nearly every text holds none."""
    return any(start in text for start in SHAPE_STARTS) or any(literal in text for literal in literals)


def _any_of(values: Iterable[str]) -> re.Pattern[str]:
    """Finds any of these, which come longest first, and the shapes of keys."""
    return re.compile("|".join((*map(re.escape, values), SHAPE.pattern)))


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Plain data with its texts and the keys of its mappings changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key) if isinstance(key, str) else key: _map_texts(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_texts(item, change) for item in value]
    return value


def texts_of(value: Any, key: str = "config") -> Iterator[tuple[str, str]]:
    """The texts of plain data and dataclasses, names of keys included, each with its key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield key, str(name)
            yield from texts_of(part, str(name) if key == "config" else f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for part in value:
            yield from texts_of(part, key)
    elif is_dataclass(value):
        for field in fields(value):
            yield from texts_of(getattr(value, field.name), field.name)


def refuse_secrets(config: Mapping[str, Any], workspace: Workspace, redactor: Redactor) -> None:
    """Raise ConfigError if a resolved config, or a file that it names, holds a secret; it says which variable's.

    To mask it instead would change what is asked, and what a resumed run reads back.
    """
    for key, text in texts_of(config):
        if variable := redactor.variable_in(text):
            raise ConfigError(f"{key}: contains the value of {variable}; run folders never store secrets.", hint=_HINT)
        if redactor.mask(text) != text:
            raise ConfigError(
                f"{key}: contains what looks like an API key; run folders never store secrets.", hint=_HINT
            )
        if variable := _variable_in_file(text, workspace, redactor):
            raise ConfigError(
                f"{key}: {text} contains the value of {variable}; run folders never store secrets.", hint=_HINT
            )


def _variable_in_file(name: str, workspace: Workspace, redactor: Redactor) -> str | None:
    """The variable whose value a file holds. Larger ones are models; what cannot be read is its reader's to refuse."""
    try:
        path = workspace.resolve(name[:_LONGEST_PATH])
        if not path.is_file() or path.stat().st_size > _LARGEST_FILE:
            return None
        with open_file(path) as file:
            return redactor.variable_in(file.read(_LARGEST_FILE).decode("utf-8", errors="ignore"))
    except (OSError, ValueError, ConfigError):
        return None
