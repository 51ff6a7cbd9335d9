"""When a search stops, and what it says."""

import pytest

from agentlab.search.budget import Budget, Spent, exhausted

BUDGET = Budget(trials=20, seconds=600, cost_usd=1.0)


@pytest.mark.parametrize(
    ("spent", "words"),
    [
        (Spent(20), "all 20 trials are done"),
        (Spent(3, seconds=601.4), "601 s are spent, the budget is 600 s"),
        (Spent(3, cost_usd=1.25), "1.25 USD are spent, the budget is 1 USD"),
        (Spent(25, 900, 9), "all 20 trials"),
    ],
)
def test_a_spent_budget_says_which_one(spent, words):
    assert words in exhausted(BUDGET, spent)


def test_below_every_bound_the_search_goes_on():
    assert exhausted(BUDGET, Spent(19, 599.9, 0.99)) is None
    assert exhausted(Budget(trials=20), Spent(19, 1e9, 1e9)) is None
