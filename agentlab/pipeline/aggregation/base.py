"""What an aggregation is: a config with a method of its own, which makes one answer of several.

A kind is a subclass with a literal `method`, a docstring that says what it does, and `choose`; the rest has defaults.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import Field

from agentlab.answers.extract import MOST_TEXT
from agentlab.config.base import StrictModel
from agentlab.config.keys import Key
from agentlab.errors import AgentlabError
from agentlab.patterns import is_costly

VERDICT_TOKENS = 48  # of a reply to `Scene.ask`
CHARACTERS = 3  # of a token, when nobody has counted
_SECONDS = 0.5  # a pattern may take for ever on a few dozen characters

Source = Annotated[str, Field(max_length=65_536)]  # of a template


@dataclass(frozen=True, slots=True)
class StageCandidate:
    """One answer of a stage."""

    model: str
    sample: int  # counted from 1 within the model
    text: str
    json: Any | None = None  # the value that fits `response_schema`; None without a schema, or when the text does not
    logprob: float | None = None  # mean log-probability per token, natural logarithm; None where nobody tells
    tokens: int = 0  # of the text, as its model counted them, or an estimate


@dataclass(frozen=True, slots=True)
class Chosen:
    """The stage's answer, and how it came about: plain JSON that is written into the run."""

    text: str
    why: Mapping[str, Any]


class AggregationScene(Protocol):
    """What an aggregation may use besides the candidates. Questions go to the model that `Aggregation.asks` names."""

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """What the stage's answers have to follow: its `response_schema`."""

    @property
    def question(self) -> str:
        """What the candidates were asked."""

    @property
    def values(self) -> Mapping[str, Any]:
        """What a template of the stage may use."""

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together that the asked model can hold."""

    def seed(self, name: str) -> int:
        """A seed of its own for everything that draws; the same in a run that is gone on with."""

    def ask(self, name: str, prompt: str, schema: Mapping[str, Any]) -> str:
        """The likeliest reply that follows a schema, in a few words. Names are unique in an aggregation."""

    def write(self, name: str, prompt: str) -> str:
        """A reply in the manner of the stage: its sampling, its schema, its stops."""


class Aggregation(StrictModel):
    """How several answers of a stage become one."""

    method: str
    asks: ClassVar[str | None] = None  # the key that names the model which is asked for it; None where nobody is
    judges: ClassVar[bool] = False  # whether it depends on the run's seed, and on how much the asked model can be shown
    logprobs: ClassVar[bool] = False  # whether it needs those of the candidates, which remote models do not tell
    templates: ClassVar[Collection[str]] = ()  # the keys that hold templates

    @property
    def asked(self) -> str | None:
        return getattr(self, self.asks) if self.asks is not None else None

    def misfits(self, models: Sequence[str], *, schema: bool) -> Iterator[tuple[Key, str | AgentlabError]]:
        """(place, what does not go with the stage there): its models, and whether it has a `response_schema`."""
        del models, schema
        yield from ()

    def choose(self, candidates: Sequence[StageCandidate], scene: AggregationScene) -> Chosen:
        """One answer of at least one candidate.

        Raises:
            AgentlabError: there is none; `on_error` of the stage decides what then.
        """
        raise NotImplementedError


def pattern_problem(pattern: str) -> str | None:
    """Why a pattern is none, in words; None when it is one."""
    import regex  # only where there are patterns: it takes a while to load

    if is_costly(pattern):
        return "too long, or too deeply nested"
    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        return f"not a valid regular expression: {error}"
    return None


def find_match(pattern: str, text: str) -> str | None:
    """What a pattern finds first in the last 65,536 characters, within half a second: its first group, or all of it."""
    import regex

    try:
        match = regex.search(pattern, text[-MOST_TEXT:], timeout=_SECONDS)
    except TimeoutError:
        return None
    if match is None:
        return None
    group = match.group(1) if match.re.groups else match.group()
    return None if group is None else str(group)
