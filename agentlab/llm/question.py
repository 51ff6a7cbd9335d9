"""What the parts of the router hand to each other: a question, who may answer it, with what means, and the outcome."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentlab.errors import AgentlabError
from agentlab.llm.budget import Budget
from agentlab.llm.config import Cap, LLMConfig, Price
from agentlab.llm.guard import ModelGuard
from agentlab.llm.ledger.sample import CachedAnswer
from agentlab.llm.retry_budget import RetryBudget
from agentlab.llm.slots import Slots
from agentlab.llm.structured import Rejected
from agentlab.llm.types import Attempt, ChatModel, Delta, EmbeddingModel, Request, Timing, ToolCall, ToolPiece, Usage
from agentlab.runs.redact import Redactor

# Makes of an answer's text what the caller wants, or says why it cannot; the flag says that the answer was cut off.
Value = Callable[[str, bool], Any | Rejected]
# Hears an answer piece by piece while it comes, and who gives it.
Sink = Callable[[str, Delta], None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be asked. `total` is in seconds from the start of the call."""

    name: str
    id: str
    provider: str
    context: int | None
    price: Price | None
    total: float
    caps: tuple[Cap, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and of whom.

    Attributes:
        request: what a provider is asked, less the name of its model.
        value: None: the text itself is wanted.
        candidates: in the order in which they are tried.
        start: when the call began, in the loop's seconds; its clock runs on through retries, other models and judges.
        cached: whether an answer from the response cache will do.
    """

    task: str
    request: Request
    value: Value | None
    candidates: tuple[Candidate, ...]
    start: float
    cached: bool = False


class Remember(Protocol):
    """The response cache, as a loop sees it."""

    def known(self, question: Question, candidate: Candidate) -> CachedAnswer | None:
        """What this model answered to this request before."""
        ...

    def keep(self, question: Question, candidate: Candidate, answer: CachedAnswer) -> None:
        """Remember an answer."""
        ...


class Observe(Protocol):
    """Learns from every attempt, and from every judgement of an answer's quality in [0, 1]."""

    def attempt(self, task: str, candidate: Candidate, error: str | None, usage: Usage, timing: Timing) -> None:
        """One attempt is over."""
        ...

    def quality(self, task: str, model: str, value: float) -> None:
        """How good an answer was."""
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """What the loops of one router share."""

    connect: Callable[[str], ChatModel]  # by the candidate's name
    embedder: Callable[[str], EmbeddingModel]  # the same, for vectors
    guards: Mapping[str, ModelGuard]
    slots: Mapping[str, Slots]  # by the provider's name
    budget: Budget
    redactor: Redactor
    retries: int
    retry_budget: RetryBudget
    random: random.Random  # spreads waiting times, draws for `adaptive`; never enters an answer
    observe: Observe
    cache: Remember
    rungs: dict[str, int] = field(default_factory=dict)  # how far down its ladder a model had to go
    out_of_use: dict[str, AgentlabError] = field(default_factory=dict)  # why a model is not asked any more


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer (`error` is None), or the error, and what it took."""

    attempts: tuple[Attempt, ...]
    model: str = ""
    text: str = ""
    value: Any = None
    error: AgentlabError | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish: str = "stop"
    timing: Timing | None = None
    cached: bool = False

    @property
    def usage(self) -> Usage:
        """Sum over all attempts."""
        return sum((attempt.usage for attempt in self.attempts), Usage())

    @property
    def delta(self) -> Delta:
        """An answer that was not heard while it came, in one piece."""
        pieces = tuple(ToolPiece(i, call.id, call.name, call.arguments) for i, call in enumerate(self.tool_calls))
        return Delta(text=self.text, tools=pieces)


def candidate_of(config: LLMConfig, name: str) -> Candidate:
    """A model of the config as somebody to ask."""
    model = config.models[name]
    return Candidate(name, model.id, model.provider, model.context, model.price, config.total(name), config.caps(name))
