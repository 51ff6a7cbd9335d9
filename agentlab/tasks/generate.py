"""The set of items: made from a seed, the same everywhere. Nothing is downloaded, nothing was copied."""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, cycle
from typing import Any, TypeVar

from agentlab.tasks import classify, code, exact, extraction, instructions
from agentlab.tasks.items import TASK_TYPES, Level, TaskItem, TaskType
from agentlab.tasks.open_questions import QUESTIONS

D = TypeVar("D")

_TRIES = 100  # drafts of one kind before a repeated question is given up
_ROOM: dict[TaskType, int] = {"exact": 256, "json": 256, "code": 384, "classify": 128, "follow": 160, "open": 320}


def generate(types: Sequence[TaskType] = TASK_TYPES, per_type: int = 12, seed: int = 0) -> tuple[TaskItem, ...]:
    """Items of each type, their levels taking turns from easy to hard.

    The items of a type depend on the seed and the type alone, so that a run of fewer types has the same ones; fewer
    items are the first of more. `per_type`: items of each, at least 1; of `open` there are twelve at most, which need
    no seed, and of the others fewer where a kind has no further question.
    """
    return tuple(chain.from_iterable(_MAKERS[kind](per_type, seed) for kind in types))


def _drafts(kinds: dict[Level, tuple[Callable[[random.Random], D], ...]], seed: str) -> Iterator[tuple[Level, D]]:
    """Drafts without repetition of a question; ends when a kind has none left."""
    rng = random.Random(seed)  # noqa: S311 - questions, no secrets
    turns = {level: cycle(kinds[level]) for level in kinds}
    seen: set[str] = set()
    for level in cycle(kinds):
        make = next(turns[level])
        for _ in range(_TRIES):
            draft: Any = make(rng)
            if draft[0] not in seen:
                break
        else:
            return
        seen.add(draft[0])
        yield level, draft


def _plain(kind: TaskType, kinds: Any) -> Callable[[int, int], Iterator[TaskItem]]:
    """Items whose drafts are (prompt, checker, expected)."""

    def items(count: int, seed: int) -> Iterator[TaskItem]:
        drafts = _drafts(kinds, f"{kind}/{seed}")
        for index, (level, (prompt, checker, expected)) in zip(range(count), drafts, strict=False):
            yield TaskItem(_name(kind, index), kind, level, prompt, expected, checker, max_tokens=_ROOM[kind])

    return items


def _json(count: int, seed: int) -> Iterator[TaskItem]:
    drafts = _drafts(extraction.KINDS, f"json/{seed}")
    for index, (level, (text, fields, values)) in zip(range(count), drafts, strict=False):
        schema = {"type": "object", "properties": dict(fields), "required": list(fields), "additionalProperties": False}
        question = extraction.prompt(text, schema)
        yield TaskItem(_name("json", index), "json", level, question, dict(values), "fields", schema, _ROOM["json"])


def _follow(count: int, seed: int) -> Iterator[TaskItem]:
    drafts = _drafts(instructions.KINDS, f"follow/{seed}")
    for index, (level, (prompt, rules)) in zip(range(count), drafts, strict=False):
        yield TaskItem(_name("follow", index), "follow", level, prompt, rules, "rules", max_tokens=_ROOM["follow"])


def _open_questions(level: int) -> list[tuple[Level, str, str]]:
    return [entry for entry in QUESTIONS if entry[0] == level]


def _open(count: int, seed: int) -> Iterator[TaskItem]:
    del seed
    easy, medium, hard = map(_open_questions, (1, 2, 3))
    turns = list(chain.from_iterable(zip(easy, medium, hard, strict=True)))
    for index, (level, question, reference) in enumerate(turns[:count]):
        yield TaskItem(_name("open", index), "open", level, question, reference, "judged", max_tokens=_ROOM["open"])


def _name(kind: TaskType, index: int) -> str:
    return f"{kind}-{index + 1:02d}"


_MAKERS: dict[TaskType, Callable[[int, int], Iterator[TaskItem]]] = {
    "exact": _plain("exact", exact.KINDS),
    "json": _json,
    "code": _plain("code", code.KINDS),
    "classify": _plain("classify", classify.KINDS),
    "follow": _follow,
    "open": _open,
}
