"""What happens after an error: the same model again, the next one, or neither. Pure; the clock and chance come in."""

from dataclasses import dataclass

from agentlab import errors
from agentlab.errors import AgentlabError, RateLimitedError

LONGEST_WAIT = 120.0  # seconds; a provider that asks for more is left alone
_FIRST_WAIT, _CEILING = 0.5, 8.0


@dataclass(frozen=True, slots=True)
class Rule:
    """`again`: the same request to the same model may succeed. `move_on`: another model may do better."""

    again: bool
    move_on: bool


_RULES: dict[type[AgentlabError], Rule] = {
    errors.LLMConnectionError: Rule(again=True, move_on=True),
    errors.LLMTimeoutError: Rule(again=False, move_on=True),
    errors.LLMTruncatedError: Rule(again=False, move_on=True),
    errors.RateLimitedError: Rule(again=True, move_on=True),
    errors.QuotaError: Rule(again=False, move_on=True),
    errors.ServerFaultError: Rule(again=True, move_on=True),
    errors.AuthError: Rule(again=False, move_on=True),
    errors.UnknownModelError: Rule(again=False, move_on=True),
    errors.BadRequestError: Rule(again=False, move_on=False),  # the same body fails elsewhere, too
    errors.ContextOverflowError: Rule(again=False, move_on=True),
    errors.ContentFilterError: Rule(again=False, move_on=False),  # a refusal is not shopped around
    errors.MalformedReplyError: Rule(again=True, move_on=True),
    errors.SchemaError: Rule(again=False, move_on=True),  # was asked again already
    errors.WorkerDiedError: Rule(again=True, move_on=True),
    errors.LLMCancelledError: Rule(again=False, move_on=False),
    errors.BudgetExceededError: Rule(again=False, move_on=False),
}
# A missing file, a broken model file: this model is out, the others are not.
_OTHERWISE = Rule(again=False, move_on=True)


def rule_for(error: AgentlabError) -> Rule:
    """The row of the table for an error."""
    return next((_RULES[kind] for kind in type(error).__mro__ if kind in _RULES), _OTHERWISE)


def backoff(tries: int, chance: float) -> float:
    """Seconds before try `tries` + 1: doubling from 0.5 to 8, times 0.5 to 1 as `chance` goes from 0 to 1."""
    return float(min(_CEILING, _FIRST_WAIT * 2 ** (tries - 1)) * (0.5 + 0.5 * chance))


def wait_before_retry(error: AgentlabError, *, tries: int, retries: int, last: bool, chance: float) -> float | None:
    """Seconds until the same model is asked again, or None if it is not.

    Args:
        error: how the latest try ended.
        tries: how often this model was asked, that try included.
        retries: how often it may be asked after the first try.
        last: no other model is left; only then is it worth waiting for a rate limit.
        chance: a number in [0, 1) that spreads the waiting times of many clients.
    """
    if tries > retries or not rule_for(error).again:
        return None
    if not isinstance(error, RateLimitedError):
        return backoff(tries, chance)
    wait = backoff(tries, chance) if error.retry_after is None else error.retry_after
    return wait if last and wait <= LONGEST_WAIT else None


def may_hold(context: int | None, overflowed: int | None) -> bool:
    """Whether a window of `context` tokens may hold what overflowed another one. None is unknown, and worth a try."""
    return overflowed is None or context is None or context > overflowed
