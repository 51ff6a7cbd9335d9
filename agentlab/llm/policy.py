"""What happens after an error: the same model again, the next one, or neither; and what the model's guard learns.

One table for everything (research: routing). Pure; the clock and chance come in.
"""

from dataclasses import dataclass

from agentlab import errors
from agentlab.errors import AgentlabError

LONGEST_WAIT = 120.0  # seconds; a provider that asks for more is left alone
_FIRST_WAIT, _CEILING = 0.5, 8.0


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table.

    Attributes:
        again: the same request to the same model may succeed, after a moment.
        move_on: another model may do better.
        trips: counts against the model in its breaker.
        cools: the model asks to be left alone for a while; it may be asked again when that is over.
        disables: the model is of no use before the configuration changes.
    """

    again: bool = False
    move_on: bool = False
    trips: bool = False
    cools: bool = False
    disables: bool = False


_FAULT = Rule(again=True, move_on=True, trips=True)

_RULES: dict[type[AgentlabError], Rule] = {
    errors.LLMConnectionError: _FAULT,
    errors.LLMTimeoutError: Rule(move_on=True, trips=True),
    errors.LLMTruncatedError: Rule(move_on=True, trips=True),
    errors.RateLimitedError: Rule(move_on=True, cools=True),
    errors.QuotaError: Rule(move_on=True, cools=True),
    errors.ServerFaultError: _FAULT,
    errors.AuthError: Rule(move_on=True, disables=True),
    errors.UnknownModelError: Rule(move_on=True, disables=True),
    errors.BadRequestError: Rule(),  # the same body fails elsewhere, too
    errors.ContextOverflowError: Rule(move_on=True),
    errors.ContentFilterError: Rule(),  # a refusal is not shopped around
    errors.MalformedReplyError: _FAULT,
    errors.SchemaError: Rule(move_on=True),  # was asked again already
    errors.WorkerDiedError: _FAULT,
    errors.LLMCancelledError: Rule(),
    errors.BudgetExceededError: Rule(),
    errors.UsageError: Rule(),  # the caller's slip, whatever model is asked
}
# A missing file, a broken model file: this model is out, the others are not.
_OTHERWISE = Rule(move_on=True)


def rule_for(error: AgentlabError) -> Rule:
    """The row of the table for an error."""
    return next((_RULES[kind] for kind in type(error).__mro__ if kind in _RULES), _OTHERWISE)


def backoff(tries: int, chance: float) -> float:
    """Seconds before try `tries` + 1: doubling from 0.5 to 8, times 0.5 to 1 as `chance` goes from 0 to 1."""
    return float(min(_CEILING, _FIRST_WAIT * 2 ** (tries - 1)) * (0.5 + 0.5 * chance))


def may_hold(context: int | None, overflowed: int | None) -> bool:
    """Whether a window of `context` tokens may hold what overflowed another one. None is unknown, and worth a try."""
    return overflowed is None or context is None or context > overflowed
