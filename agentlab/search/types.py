"""The seams of a search: who proposes, what was measured, and what is remembered."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np  # a config model names `Value`; reading a config should not load numpy

Value = bool | int | float | str
Params = Mapping[str, Value]  # dotted config key -> value; inactive conditional parameters are absent

_SOURCES = {
    "default": "the config as written",
    "lhs": "a start point of a Latin hypercube",
    "gp": "Gaussian process",
    "tpe": "tree-structured Parzen estimator",
    "random": "random search",
    "ga": "genetic algorithm",
    "one-plus-lambda": "(1+lambda) evolution strategy",
    "cma-es": "covariance matrix adaptation evolution strategy",
    "map-elites": "MAP-Elites",
    "llm": "the language model",
    "human": "a proposal edited by a person",
    "parent": "an unchanged parent",
    "blend": "the uniform blend of all parents",
    "base": "the base model alone",
    "portfolio": "a recipe known to be good",
    "memory": "the result of an earlier run",
}


def meaning(source: str) -> str:
    """What a proposal's source says, for a reader; an unknown one says itself. Pure."""
    proposer, _, stand_in = source.partition("->")
    if stand_in:
        return f"{stand_in} instead of {proposer}, which gave no usable answer"
    return _SOURCES.get(source, source)


def legend(sources: Iterable[str]) -> str:
    """The meaning of each source, and of what stood in for another, once. Pure."""
    words = chain.from_iterable((source, *source.split("->")[1:]) for source in sources)
    return "; ".join(f"{word}: {meaning(word)}" for word in dict.fromkeys(words))


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate and where it came from: `default`, `lhs`, `gp`, `tpe`, `random`, `llm`, `llm->gp` (fallback)."""

    params: Params
    source: str
    note: str = ""  # the proposer's reason, or why it fell back


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What an objective measured. A failed trial has no value and says why; a running one is known to be under way.

    `value` is what proposers learn from; lower is better. `objectives` are all of several, lower is better in each.
    `items` are the values of single items, which pair up between trials. `metrics` may hold resources used.
    """

    status: Literal["finished", "failed", "running"]
    value: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    objectives: tuple[float, ...] = ()
    items: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """One line of a search's history."""

    number: int
    proposal: Proposal
    result: TrialResult
    closes: bool = False  # the last of its batch, which the budget cut short


class Proposer(Protocol):
    """Suggests candidates. All randomness comes from the generator, so the same history gives the same answer.

    Nothing is told between two calls: a proposer that kept what it heard would not go on as an uninterrupted one does.
    """

    @property
    def name(self) -> str:
        """Short, for reports: `gp`, `llm`."""

    def ask(self, history: Sequence[Trial], n: int, rng: "np.random.Generator") -> list[Proposal]:
        """Up to `n` candidates, best first, or a ConfigError if the constraints leave hardly any points."""
