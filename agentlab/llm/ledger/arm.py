"""What a ledger is told, and what is known of one model at one task. Pure; the clock comes in with the evidence.

An arm holds discounted counts and moments. A model's manners change slowly (half-life: 200 calls), its speed quickly
(10 calls), and all evidence fades with time (7 days). Discounting per call follows Garivier and Moulines, "On
upper-confidence bound policies for switching bandit problems" (2011), section 2; the moments are Welford's with
weights.
"""

import math
from dataclasses import dataclass, replace

from agentlab.llm.types import Timing, ToolCall, Usage

_DAYS = 7 * 86_400.0  # seconds in which evidence of any kind loses half of its weight
_CALL = 0.5 ** (1 / 200)  # what a call leaves of the weight of earlier ones
_SPEED_CALL = 0.5 ** (1 / 10)  # the same for speed: at most about 15 calls count
# A duration this many standard deviations (of at least so much) off the mean tells of a change: little is kept then.
_SURPRISE, _LEAST_DEVIATION, _KEPT = 3.0, 0.3, 0.1
_SHORTEST = 1e-6  # seconds; a clock that stood still has no logarithm
# These say nothing about the model: the caller gave up, could not pay, or asked too much at a time.
_NEUTRAL = frozenset({"LLMCancelledError", "BudgetExceededError", "HostBusyError"})
_MOST_TOKENS = 2**53  # what a float counts exactly
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class AttemptSample:
    """One attempt at one model."""

    at: float  # UNIX seconds at its end
    task: str
    model: str
    provider: str
    error: str | None  # its kind; None when the model answered
    usage: Usage  # None in it is unknown, never zero
    first: float | None  # seconds to the first content; None when it came whole or never
    total: float  # seconds in all
    run: str = ""  # its id; empty without one

    def with_clean_names(self) -> "AttemptSample":
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
        return math.isfinite(self.at + self.value)


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """A whole answer that ended normally. It holds nothing of the question."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    finish: str
    model: str  # its name in the config
    usage: Usage  # this and `timing`: what it took when it was asked
    timing: Timing | None
    at: float  # UNIX seconds at which it was there


def name_of(text: str) -> str:
    """A name as it is stored: bounded, and with question marks for lone surrogates, which JSON can carry."""
    text = text[:_LONGEST_NAME]
    return text if text.isascii() else text.encode(errors="replace").decode()


@dataclass(frozen=True, slots=True)
class Arm:
    """Evidence about one (task, model), in discounted numbers. The empty one knows nothing."""

    successes: float = 0.0  # attempts that answered
    failures: float = 0.0  # attempts that did not
    quality_sum: float = 0.0  # of judged qualities, each in 0..1
    quality_count: float = 0.0
    first_count: float = 0.0  # weight, mean and sum of squares of log(seconds to the first content)
    first_mean: float = 0.0
    first_m2: float = 0.0
    rate_count: float = 0.0  # the same of log(seconds per output token after the first)
    rate_mean: float = 0.0
    rate_m2: float = 0.0
    cost_sum: float = 0.0  # USD and output tokens of the calls whose cost is known
    cost_tokens: float = 0.0
    at: float = 0.0  # UNIX seconds of the newest evidence

    def with_decay(self, now: float) -> "Arm":
        """What the evidence weighs at `now`, in UNIX seconds. A view: `at` stays, so never decay or extend it."""
        return self._with_discount(0.5 ** (max(0.0, now - self.at) / _DAYS))

    def with_sample(self, sample: AttemptSample) -> "Arm":
        """This arm after one more attempt. Order matters: processes that share an arm update it one after another."""
        if sample.error in _NEUTRAL:
            return self
        aged = self.with_decay(sample.at)._with_discount(_CALL)
        at = max(self.at, sample.at)
        if sample.error is not None:
            return replace(aged, failures=aged.failures + 1, at=at)
        return replace(aged, successes=aged.successes + 1, at=at)._with_timing(sample)._with_cost(sample)

    def with_quality(self, at: float, value: float) -> "Arm":
        """This arm after an answer of quality `value` (cut to 0..1), judged at `at` in UNIX seconds."""
        aged = self.with_decay(at)
        value = min(1.0, max(0.0, value))
        return replace(
            aged, quality_sum=aged.quality_sum + value, quality_count=aged.quality_count + 1, at=max(self.at, at)
        )

    def _with_discount(self, share: float) -> "Arm":
        return replace(
            self,
            successes=self.successes * share,
            failures=self.failures * share,
            quality_sum=self.quality_sum * share,
            quality_count=self.quality_count * share,
            first_count=self.first_count * share,
            first_m2=self.first_m2 * share,
            rate_count=self.rate_count * share,
            rate_m2=self.rate_m2 * share,
            cost_sum=self.cost_sum * share,
            cost_tokens=self.cost_tokens * share,
        )

    def _with_timing(self, sample: AttemptSample) -> "Arm":
        """An answer that came whole began when it ended, and says nothing of seconds per token."""
        first = sample.total if sample.first is None else sample.first
        count, mean, m2 = _moments(self.first_count, self.first_mean, self.first_m2, first)
        arm = replace(self, first_count=count, first_mean=mean, first_m2=m2)
        tokens = sample.usage.output_tokens
        if sample.first is None or tokens is None or tokens < 2:
            return arm
        rate = (sample.total - sample.first) / (tokens - 1)
        count, mean, m2 = _moments(self.rate_count, self.rate_mean, self.rate_m2, rate)
        return replace(arm, rate_count=count, rate_mean=mean, rate_m2=m2)

    def _with_cost(self, sample: AttemptSample) -> "Arm":
        usage = sample.usage
        if usage.cost_usd is None or not usage.output_tokens:
            return self
        return replace(
            self, cost_sum=self.cost_sum + usage.cost_usd, cost_tokens=self.cost_tokens + usage.output_tokens
        )


def _moments(count: float, mean: float, m2: float, seconds: float) -> tuple[float, float, float]:
    """Weight, mean and sum of squares of the logarithm after one more duration."""
    value = math.log(max(seconds, _SHORTEST))
    if count >= 2 and abs(value - mean) > _SURPRISE * max(_LEAST_DEVIATION, math.sqrt(m2 / count)):
        count, m2 = count * _KEPT, m2 * _KEPT
    weight = count * _SPEED_CALL + 1
    moved = mean + (value - mean) / weight
    return weight, moved, m2 * _SPEED_CALL + (value - mean) * (value - moved)
