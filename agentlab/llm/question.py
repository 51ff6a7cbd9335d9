"""What the parts of the router hand to each other: a question, who may answer it, with what means, and the outcome."""

import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from agentlab.errors import AgentlabError
from agentlab.llm.budget import RetryBudget, RouterBudget
from agentlab.llm.config import LLMConfig
from agentlab.llm.guard import ModelGuard, Slots
from agentlab.llm.ledger import Ledger
from agentlab.llm.ledger.arm import AttemptSample, CachedAnswer
from agentlab.llm.provider_config import Cap, Price
from agentlab.llm.structured import Rejected
from agentlab.llm.types import (
    Attempt,
    ChatModel,
    Delta,
    EmbeddingModel,
    ModelRequest,
    Timing,
    ToolCall,
    ToolPiece,
    Usage,
)
from agentlab.runs.redact import Redactor

# Makes of an answer's text what the caller wants, or says why it cannot; the flag says that the answer was cut off.
Value = Callable[[str, bool], Any | Rejected]
# Hears an answer piece by piece while it comes, and who gives it.
Sink = Callable[[str, Delta], None]
# What a provider's entry says about money, patience and keys has no part in what it answers.
_NO_PART = {"limits", "api_key", "total"}


@dataclass(frozen=True, slots=True)
class RouterCandidate:
    """A model that may be asked. `total` is in seconds from the start of the call."""

    name: str
    id: str
    provider: str
    context: int | None
    price: Price | None
    total: float
    caps: tuple[Cap, ...]


@dataclass(frozen=True, slots=True)
class RouterQuestion:
    """What is asked, and of whom. `thoughts` and `fail_fast`: see `Options`."""

    task: str
    request: ModelRequest  # less the name of the model
    value: Value | None  # None: the text itself is wanted
    candidates: tuple[RouterCandidate, ...]  # in the order in which they are tried
    start: float  # of the call, in the loop's seconds; its clock runs on through retries, other models and judges
    # Who is asked if no candidate answers, in a question of its own: the clock leaves them a share.
    later: tuple[RouterCandidate, ...] = ()
    cached: bool = False  # whether an answer from the response cache will do
    thoughts: bool = False
    fail_fast: bool = False


class ResponseCache:
    """The same question, to the same model of the same provider, need not be paid for twice.

    Answers are found in the ledger by everything that was sent, and where to.
    """

    def __init__(self, config: LLMConfig, ledger: Ledger) -> None:
        self._config = config
        self._ledger = ledger

    def find_answer(self, question: RouterQuestion, candidate: RouterCandidate) -> CachedAnswer | None:
        return self._ledger.answer(self._key(question, candidate))

    def keep(self, question: RouterQuestion, candidate: RouterCandidate, answer: CachedAnswer) -> None:
        self._ledger.remember(self._key(question, candidate), answer)

    def _key(self, question: RouterQuestion, candidate: RouterCandidate) -> str:
        """SHA-256 of the whole request and of the provider it goes to."""
        provider = self._config.providers[candidate.provider].model_dump(mode="json", exclude=_NO_PART)
        return key_of({"provider": provider, "request": asdict(replace(question.request, model=candidate.id))})


class Observer:
    """What the router's loops learn goes into the ledger."""

    def __init__(self, ledger: Ledger, *, run: str, on_sample: Callable[[AttemptSample], None] | None) -> None:
        """`run` is the id of the run that asks, empty without one; `on_sample` hears of every attempt as well."""
        self._ledger = ledger
        self._run = run
        self._on_sample = on_sample

    def attempt(self, task: str, candidate: RouterCandidate, error: str | None, usage: Usage, timing: Timing) -> None:
        name, provider = candidate.name, candidate.provider
        sample = AttemptSample(time.time(), task, name, provider, error, usage, timing.first, timing.total, self._run)
        self._ledger.record(sample)
        if self._on_sample is not None:
            self._on_sample(sample)

    def quality(self, task: str, model: str, value: float) -> None:
        """`value` from 0 to 1."""
        self._ledger.quality(time.time(), task, model, value)


@dataclass(frozen=True, slots=True)
class RouterServices:
    """What the loops of one router share."""

    client_of: Callable[[str], ChatModel]  # by the candidate's name
    embedder: Callable[[str], EmbeddingModel]  # the same, for vectors
    guards: Mapping[str, ModelGuard]
    slots: Mapping[str, Slots]  # by the provider's name
    budget: RouterBudget
    redactor: Redactor
    retries: int
    retry_budget: RetryBudget
    random: random.Random  # spreads waiting times, draws for `adaptive`; never enters an answer
    observe: Observer
    cache: ResponseCache
    rungs: dict[str, int] = field(default_factory=dict)  # how far down its ladder a model had to go
    out_of_use: dict[str, AgentlabError] = field(default_factory=dict)  # why a model is not asked any more


@dataclass(frozen=True, slots=True)
class RouterOutcome:
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
        return sum((attempt.usage for attempt in self.attempts), Usage())

    @property
    def delta(self) -> Delta:
        """An answer that was not heard while it came, in one piece."""
        pieces = tuple(ToolPiece(i, call.id, call.name, call.arguments) for i, call in enumerate(self.tool_calls))
        return Delta(text=self.text, tools=pieces)


def key_of(question: Mapping[str, Any]) -> str:
    """SHA-256 of a question in canonical JSON: all that decides its answer."""
    text = json.dumps(question, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def candidate_of(config: LLMConfig, name: str) -> RouterCandidate:
    """A model of the config as somebody to ask."""
    model = config.models[name]
    return RouterCandidate(
        name, model.id, model.provider, model.context, model.price, config.total(name), config.caps(name)
    )
