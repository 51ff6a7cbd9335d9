"""When requests are to be sent, and what they ask. Pure: everything follows from the seed."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from agentlab.bench.load.config import LoadConfig
from agentlab.llm.types import Message

Arrivals = Literal["closed", "poisson", "constant"]

# Common words, most of them one token in every vocabulary.
_WORDS = (
    *("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state"),
    *("family", "student", "group", "country", "problem", "hand", "part", "place", "case", "week", "company", "system"),
    *("program", "question", "work", "number", "night", "point", "home", "water", "room", "mother", "area", "money"),
    *("story", "fact", "month", "lot", "right", "study", "book", "eye", "job", "word", "business", "issue", "side"),
)
_TOKENS_PER_WORD = 1.05
_TASK = "Write a long story that uses these words, and do not stop early:"
_OVERHEAD = 24  # tokens of the task, the name of the request and the chat template, about


@dataclass(frozen=True, slots=True)
class LoadStage:
    """One load on one target. `value` is requests at a time (closed) or per second (poisson, constant)."""

    id: str
    target: str
    arrivals: Arrivals
    value: float
    requests: int
    seed: int

    @property
    def label(self) -> str:
        return load_label(self.arrivals, self.value)


def load_label(arrivals: Arrivals, value: float) -> str:
    """`4 at a time`, `2.5/s poisson`."""
    return f"{value:g} at a time" if arrivals == "closed" else f"{value:.4g}/s {arrivals}"


def stage_of(
    target: str, target_index: int, turn: int, arrivals: Arrivals, value: float, load: LoadConfig, seed: int
) -> LoadStage:
    """The `turn`-th stage of a target. Its id is also the name of its file."""
    slug = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in target)[:40].strip("-")
    mark = f"c{value:g}" if arrivals == "closed" else f"r{value:.4g}"
    name = f"{target_index:02d}-{turn:02d}-{slug or 'target'}-{mark}"
    return LoadStage(name, target, arrivals, value, load.requests, _seed(seed, target_index, turn))


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8])


def offsets(stage: LoadStage) -> Iterator[float]:
    """Seconds from the start of an open-loop stage at which each request is to be sent: one absolute schedule."""
    draw = random.Random(stage.seed)  # noqa: S311 - arrivals, no secret
    at = 0.0
    for index in range(stage.requests):
        at = index / stage.value if stage.arrivals == "constant" else at + draw.expovariate(stage.value)
        yield at


class Prompts:
    """The questions of one stage, each about `prompt_tokens` long.

    Each begins differently, so that no server can reuse the work of an earlier one; with `prefix_cache` all begin
    alike and differ in the end. What they share is made once: making it must not cost time while others are measured.
    """

    def __init__(self, stage: LoadStage, load: LoadConfig) -> None:
        draw = random.Random(load.prefix_cache or stage.seed)  # noqa: S311 - words, no secret
        count = max(1, round((load.prompt_tokens - _OVERHEAD) / _TOKENS_PER_WORD))
        self._words = f"{_TASK} {' '.join(draw.choices(_WORDS, k=count))}."
        self._alike, self._seed = load.prefix_cache, stage.seed

    def seed(self, index: int) -> int:
        """The seed that the model gets with this question: 31 bits, which every server takes."""
        return _seed(self._seed, index) >> 33

    def of(self, index: int) -> tuple[Message, ...]:
        name = f"Request {self.seed(index):08x}."
        return (Message("user", f"{self._words} {name}" if self._alike else f"{name} {self._words}"),)
