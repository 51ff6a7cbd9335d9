"""A question whose answer can be checked."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

TaskType = Literal["exact", "json", "code", "classify", "follow", "open"]
TASK_TYPES: tuple[TaskType, ...] = get_args(TaskType)

# Names in the table of `agentlab.tasks.check`.
CheckerName = Literal["number", "text", "letter", "label", "fields", "expression", "rules", "judged"]
Level = Literal[1, 2, 3]


@dataclass(frozen=True, slots=True)
class TaskItem:
    """One question.

    Attributes:
        id: unique in its set: type and number, such as `exact-03`.
        type: what kind of skill it asks for.
        level: 1 is what the smallest model may get right, 3 what a large one may get wrong.
        prompt: the whole question.
        expected: what the checker compares with: plain JSON, its shape set by the checker.
        checker: how an answer is scored.
        schema: the JSON schema the answer has to follow, for answers in JSON.
        max_tokens: what an answer needs at most, reasoning aloud included.
    """

    id: str
    type: TaskType
    level: Level
    prompt: str
    expected: Any
    checker: CheckerName
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 256

    @property
    def digest(self) -> str:
        """SHA-256 of everything the item holds: equal digests are equal questions."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def set_digest(items: Sequence[TaskItem]) -> str:
    """Digest of a set of items, whatever their order."""
    return hashlib.sha256("".join(sorted(item.digest for item in items)).encode()).hexdigest()[:16]
