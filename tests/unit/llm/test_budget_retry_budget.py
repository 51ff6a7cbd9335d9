"""Retries are at most a fifth of the calls that were asked for, and a few."""

from hypothesis import given
from hypothesis import strategies as st

from agentlab.llm.budget import RetryBudget


@given(st.lists(st.booleans(), max_size=500))
def test_retries_never_exceed_a_fifth_of_the_first_requests_and_three(steps):
    budget, first, retries = RetryBudget(), 0, 0
    for is_first in steps:
        if is_first:
            budget.deposit()
            first += 1
        else:
            retries += budget.allows()
        assert retries <= 3 + first / 5


def test_five_first_requests_pay_for_one_retry():
    budget = RetryBudget()
    assert [budget.allows() for _ in range(4)] == [True, True, True, False]
    for _ in range(4):
        budget.deposit()
    assert not budget.allows()
    budget.deposit()
    assert budget.allows()
    assert not budget.allows()


def test_a_long_quiet_time_does_not_save_up_for_a_storm():
    budget = RetryBudget()
    for _ in range(100_000):
        budget.deposit()
    assert sum(budget.allows() for _ in range(1000)) == 20
