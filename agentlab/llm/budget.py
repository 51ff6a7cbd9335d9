"""What the calls of a run, and of a day, have consumed, and whether the next one may be sent."""

from collections.abc import Callable, Sequence

from agentlab.errors import BudgetExceededError
from agentlab.llm.provider_config import Price
from agentlab.llm.types import Message, Usage

_CHARACTERS_PER_TOKEN = 2.5  # fewer than in English prose (about 4), so that an estimate errs upwards
_TOKENS_PER_MESSAGE = 8
_MILLION = 1e6
_PRICE = 5  # first requests that pay for one retry
_FIRST, _MOST = 3, 20  # retries that are free at the start, and that can be saved up


def tokens_of(messages: Sequence[Message]) -> int:
    """About how many tokens a prompt has; rather too many than too few."""
    characters = sum(len(message.content) for message in messages)
    return int(characters / _CHARACTERS_PER_TOKEN) + _TOKENS_PER_MESSAGE * len(messages)


def estimate(price: Price | None, messages: Sequence[Message], max_tokens: int) -> float | None:
    """The most a call is likely to cost in USD; None when the price is unknown."""
    if price is None:
        return None
    return (tokens_of(messages) * price.input + max_tokens * price.output) / _MILLION


def priced_usage(usage: Usage, price: Price | None) -> Usage:
    """The usage with its cost: what the provider reported if above zero, else what the price list makes of it."""
    if usage.cost_usd or price is None or usage.input_tokens is None or usage.output_tokens is None:
        return usage
    cost = (usage.input_tokens * price.input + usage.output_tokens * price.output) / _MILLION
    return Usage(usage.input_tokens, usage.output_tokens, cost)


class RouterBudget:
    """Counts up to a limit for the run, and to another for the day. Calls in flight count with their estimate."""

    def __init__(
        self,
        limit: float,  # USD for the run
        usage: Usage,  # what earlier sessions of the run consumed
        *,
        day: float | None = None,  # limits what `spent_today` counts, in USD
        spent_today: Callable[[], float | None] = lambda: None,  # USD of this day's calls that said their cost
        today: Callable[[], int] = lambda: 0,  # number of the day; it changes when `spent_today` starts anew
    ) -> None:
        self._limit = limit
        self._day = day
        self._spent_today = spent_today
        self._today = today
        self._reserved = 0.0
        self._assumed = 0.0  # what calls that never said are assumed to have cost
        self._assumed_on = (0, 0.0)  # number of the latest day with such calls, and their part
        self.usage = usage

    def reserve(self, cost: float | None) -> None:
        """Set the estimated cost of a call aside; None is unknown, and allowed while anything is left.

        Raises:
            BudgetExceededError: too little is left.
        """
        spent_usd = (self.usage.cost_usd or 0.0) + self._assumed
        self._check(spent_usd, self._limit, cost, "run", "--max-cost, budget.per_run_usd")
        if self._day is not None and cost != 0:
            spent_usd = (self._spent_today() or 0.0) + self._assumed_today()
            self._check(spent_usd, self._day, cost, "day", "budget.per_day_usd")
        self._reserved += cost or 0.0

    def _check(self, spent_usd: float, limit: float, cost: float | None, span: str, flag: str) -> None:
        spent_usd += self._reserved
        if spent_usd >= limit if cost is None else cost > 0 and spent_usd + cost > limit:
            raise BudgetExceededError(
                f"The next language-model call would exceed the budget of the {span}: "
                + f"{spent_usd:.4f} of {limit:g} "
                + ("USD has been spent." if cost is None else f"USD has been spent, and the call may cost {cost:.4f}."),
                hint=f"Raise the budget ({flag}), or use a free model, such as the embedded one.",
            )

    def settle(self, cost: float | None, usage: Usage, *, answered: bool) -> float | None:
        """Replace the reservation by what was consumed. A call that `answered` without saying its cost keeps it.

        Returns what such a call is assumed to have cost, to be noted in its `Attempt`; None for any other.
        """
        self._reserved -= cost or 0.0
        self.usage = self.usage + usage
        if not (answered and cost) or usage.cost_usd is not None:
            return None
        self._assumed += cost
        self._assumed_on = (self._today(), self._assumed_today() + cost)
        return cost

    def _assumed_today(self) -> float:
        day, cost = self._assumed_on
        return cost if day == self._today() else 0.0


class RetryBudget:
    """How many retries an outage may cause: at most a fifth more calls than were asked for, lest they make it worse.

    One per process. Counts in fifths of a retry.
    """

    def __init__(self) -> None:
        self._saved = _FIRST * _PRICE

    def deposit(self) -> None:
        """A first request was sent."""
        self._saved = min(_MOST * _PRICE, self._saved + 1)

    def allows(self) -> bool:
        """Whether a retry may be sent now; if so, it is paid."""
        if self._saved < _PRICE:
            return False
        self._saved -= _PRICE
        return True
