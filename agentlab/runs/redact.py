"""Secrets never leave the process: every text that is written or shown passes through a `Redactor`.

Only text is masked, never the structure around it: a config, an event or a result can be read back whatever the
environment holds.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from agentlab.config.secrets import SHAPE, SHORTEST, is_word, secrets_of

if TYPE_CHECKING:
    from agentlab.runs.document import Block

MASK = "[redacted]"


class Redactor:
    """Knows the secret values of an environment and the shapes of common keys."""

    def __init__(self, secrets: Iterable[str] = (), words: Iterable[str] = ()) -> None:
        """`secrets` are masked wherever they stand; `words` may as well be names, and are masked in sentences alone."""
        self._known = _either(secrets, "{}")
        self._words = _either(words, r"(?<![\w./-])(?:{})(?![\w/-]|\.\w)")

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "Redactor":
        """All variables whose name says that they are secret."""
        found = list(secrets_of(env))
        return cls((value for value in found if not is_word(value)), filter(is_word, found))

    def scrub(self, text: str) -> str:
        """A text for a reader, with every secret masked."""
        if self._words is not None:
            text = self._words.sub(MASK, text)
        return self._strict(text)

    def scrub_tree(self, value: Any) -> Any:
        """Plain data with the secrets in its texts masked. A text without a blank may be a name, and so is a key."""
        if isinstance(value, str):
            return self.scrub(value) if any(map(str.isspace, value)) else self._strict(value)
        if isinstance(value, Mapping):
            return {
                self._strict(key) if isinstance(key, str) else key: self.scrub_tree(item) for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.scrub_tree(item) for item in value]
        return value

    def scrub_blocks(self, blocks: "Sequence[Block]") -> "list[Block]":
        """What a reader sees with its secrets masked, before markup is put around it."""
        return [
            replace(block, **{part.name: self.scrub_tree(getattr(block, part.name)) for part in fields(block)})
            for block in blocks
        ]

    def scrub_file(self, name: str, text: str) -> str:
        """A file's text with every secret masked, so that what reads such files still can.

        A YAML file that holds one loses its comments.
        """
        if name.endswith(".jsonl"):
            return "\n".join(self._line(line) for line in text.split("\n"))
        if not name.endswith((".yaml", ".yml")):
            return self.scrub(text)
        from agentlab.config.yaml_tree import read_yaml, write_yaml

        tree = read_yaml(text, name).data
        masked = self.scrub_tree(tree)
        return text if masked == tree and self._strict(text) == text else write_yaml(masked)

    def _line(self, line: str) -> str:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return self.scrub(line)
        masked = self.scrub_tree(value)
        return line if masked == value else json.dumps(masked, ensure_ascii=False)

    def _strict(self, text: str) -> str:
        """A text with what cannot be but a secret masked."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return SHAPE.sub(MASK, text)


def _either(values: Iterable[str], form: str) -> re.Pattern[str] | None:
    """What finds any of these, the longest first."""
    known = sorted({value for value in values if len(value) >= SHORTEST}, key=len, reverse=True)
    return re.compile(form.format("|".join(map(re.escape, known)))) if known else None
