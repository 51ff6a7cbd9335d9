"""What became of the personas: whether they can be told apart, what the base forgot. Pure but for the scorer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agentlab.stats.control import Interval
from agentlab.stats.proportions import wilson_interval
from agentlab.tasks.generate import generate
from agentlab.train.masks import Example


class Scores(Protocol):
    """What a scorer tells; see `train.scoring.Scorer`. The adapter None is the base."""

    def logprobs(self, adapter: str | None, examples: Sequence[Example]) -> list[float]:
        """Mean log-probability of the supervised tokens of each example."""
        ...

    def choices(self, adapter: str | None, questions: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
        """The likeliest answer to each question."""
        ...


@dataclass(frozen=True, slots=True)
class Separability:
    """How often a held-out turn is likeliest under its own persona.

    `matrix[own][other]` is the mean log-probability of own's turns under other, `base` included; `chance` is what
    guessing would get.
    """

    share: Interval
    count: int
    chance: float
    matrix: Mapping[str, Mapping[str, float]]


def separability(scores: Scores, held_out: Mapping[str, Sequence[Example]], most: int) -> Separability | None:
    """Over at most `most` held-out conversations of each persona; None with fewer than two personas that have some."""
    chosen = {name: list(examples)[:most] for name, examples in held_out.items() if examples}
    if len(chosen) < 2 or most == 0:
        return None
    hits = count = 0
    matrix: dict[str, dict[str, float]] = {}
    for own, examples in chosen.items():
        under = {name: scores.logprobs(name, examples) for name in chosen}
        base = scores.logprobs(None, examples)
        matrix[own] = {name: _mean(values) for name, values in (*under.items(), ("base", base))}
        for place in range(len(examples)):
            best = max(chosen, key=lambda name: under[name][place])
            hits += best == own
            count += 1
    return Separability(wilson_interval(hits, count), count, 1 / len(chosen), matrix)


def forgetting(scores: Scores, names: Sequence[str], items: int) -> dict[str | None, Interval]:
    """Share of right labels at the base task (texts to be classified), of the base (None) and under each persona."""
    if items == 0:
        return {}
    asked = generate(("classify",), items)
    questions = [(item.prompt, item.expected["among"]) for item in asked]
    found: dict[str | None, Interval] = {}
    for name in (None, *names):
        said = scores.choices(name, questions)
        hits = sum(answer == item.expected["right"] for answer, item in zip(said, asked, strict=True))
        found[name] = wilson_interval(hits, len(asked))
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
