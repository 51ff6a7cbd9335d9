"""Money: estimated before a call, counted after it, unknown never taken for nothing."""

import pytest

from agentlab.errors import BudgetExceededError
from agentlab.llm.budget import RouterBudget, estimate, priced_usage
from agentlab.llm.provider_config import Price
from agentlab.llm.types import Message, Usage

PRICE = Price(input=3, output=15)


def test_an_estimate_is_not_below_what_prose_costs():
    prose = "The quick brown fox jumps over the lazy dog. " * 100  # about 1000 tokens
    assert estimate(PRICE, [Message("user", prose)], 100) > (1000 * 3 + 100 * 15) / 1e6
    assert estimate(None, [Message("user", prose)], 100) is None


def test_a_reported_cost_goes_before_the_price_list():
    assert priced_usage(Usage(1_000_000, 1_000_000, 7.0), PRICE).cost_usd == 7.0
    assert priced_usage(Usage(1_000_000, 1_000_000), PRICE).cost_usd == 18.0
    assert priced_usage(Usage(1_000_000, None), PRICE).cost_usd is None
    assert priced_usage(Usage(10, 10), None).cost_usd is None


def test_calls_in_flight_count():
    budget = RouterBudget(1.0, Usage())
    budget.reserve(0.6)
    with pytest.raises(BudgetExceededError, match=r"may cost 0\.6"):
        budget.reserve(0.6)
    budget.settle(0.6, Usage(1, 1, 0.1), answered=True)
    budget.reserve(0.6)


def test_a_call_that_never_said_what_it_cost_is_taken_at_its_estimate():
    budget = RouterBudget(1.0, Usage())
    budget.reserve(0.6)
    budget.settle(0.6, Usage(), answered=True)
    with pytest.raises(BudgetExceededError):
        budget.reserve(0.6)
    assert budget.usage.cost_usd is None


def test_a_call_that_never_reached_the_model_costs_nothing():
    budget = RouterBudget(1.0, Usage())
    budget.reserve(0.6)
    budget.settle(0.6, Usage(), answered=False)
    budget.reserve(0.6)


def test_free_models_go_on_when_nothing_is_left():
    budget = RouterBudget(0.0, Usage(cost_usd=0.5))
    budget.reserve(0.0)
    with pytest.raises(BudgetExceededError):
        budget.reserve(None)


def test_what_calls_are_assumed_to_have_cost_counts_on_their_day_alone():
    day = [7]
    budget = RouterBudget(100.0, Usage(), day=1.0, spent_today=lambda: 0.0, today=lambda: day[0])
    for _ in range(3):
        budget.reserve(0.3)
        budget.settle(0.3, Usage(), answered=True)
    with pytest.raises(BudgetExceededError, match="of the day"):
        budget.reserve(0.3)
    day[0] = 8
    budget.reserve(0.3)


def test_settling_says_what_is_assumed():
    budget = RouterBudget(9.0, Usage())
    assert budget.settle(0.3, Usage(), answered=True) == 0.3
    assert budget.settle(0.3, Usage(1, 1, 0.1), answered=True) is None
    assert budget.settle(0.3, Usage(), answered=False) is None
    assert budget.settle(None, Usage(), answered=True) is None
