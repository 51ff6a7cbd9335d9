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
Draft = tuple[str, CheckerName, Any]  # prompt, checker, expected


@dataclass(frozen=True, slots=True)
class TaskItem:
    """One question."""

    id: str  # unique in its set: type and number, such as `exact-03`
    type: TaskType
    level: Level  # 1 is what the smallest model may get right, 3 what a large one may get wrong
    prompt: str  # the whole question
    expected: Any  # what the checker compares with: plain JSON, its shape set by the checker
    checker: CheckerName
    schema: Mapping[str, Any] | None = None  # that an answer in JSON has to follow
    max_tokens: int = 256  # what an answer needs at most, reasoning aloud included

    @property
    def digest(self) -> str:
        """SHA-256 of everything the item holds: equal digests are equal questions."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def set_digest(items: Sequence[TaskItem]) -> str:
    """Digest of a set of items, whatever their order."""
    return hashlib.sha256("".join(sorted(item.digest for item in items)).encode()).hexdigest()[:16]
