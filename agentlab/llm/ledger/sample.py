"""What a ledger is told: attempts, how good their answers were, and the answers themselves."""

import math
from dataclasses import dataclass, replace

from agentlab.llm.types import Timing, ToolCall, Usage

_MOST_TOKENS = 2**53  # what a float counts exactly
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Sample:
    """One attempt at one model.

    Attributes:
        at: UNIX seconds at its end.
        task: what the call was for, such as `nas.evaluate`.
        model: the name in the config.
        provider: the name in the config.
        error: kind of the error; None when it answered.
        usage: None in it is unknown, never zero.
        first: seconds to the first content; None when it came whole or never.
        total: seconds in all.
        run: id of the run; empty without one.
    """

    at: float
    task: str
    model: str
    provider: str
    error: str | None
    usage: Usage
    first: float | None
    total: float
    run: str = ""

    def cleaned(self) -> "Sample":
        """The same with names that can be stored: an odd name must not hide what the attempt cost."""
        names = (self.task, self.model, self.provider, self.run)
        task, model, provider, run = map(name_of, names)
        if (task, model, provider, run) == names:
            return self
        return replace(self, task=task, model=model, provider=provider, run=run)

    def is_sound(self) -> bool:
        """Whether it can be stored and averaged: finite seconds, no absurd tokens or cost."""
        usage = self.usage
        cost, read, written = usage.cost_usd or 0.0, usage.input_tokens or 0, usage.output_tokens or 0
        return (
            math.isfinite(self.at + self.total + (self.first or 0.0) + cost)
            and cost >= 0
            and 0 <= read < _MOST_TOKENS
            and 0 <= written < _MOST_TOKENS
        )


@dataclass(frozen=True, slots=True)
class Quality:
    """How good an answer of a model to a task was, 0 to 1: a judge's verdict, a validation, a user's word."""

    at: float
    task: str
    model: str
    value: float

    def is_sound(self) -> bool:
        """Whether it can be stored and averaged."""
        return math.isfinite(self.at + self.value)


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """A whole answer that ended normally. It holds nothing of the question.

    Attributes:
        model: the name in the config of the model that answered.
        usage, timing: what it took when it was asked.
        at: UNIX seconds at which it was there.
    """

    text: str
    tool_calls: tuple[ToolCall, ...]
    finish: str
    model: str
    usage: Usage
    timing: Timing | None
    at: float


def name_of(text: str) -> str:
    """A name as it is stored: bounded, and with question marks for lone surrogates, which JSON can carry."""
    text = text[:_LONGEST_NAME]
    return text if text.isascii() else text.encode(errors="replace").decode()
