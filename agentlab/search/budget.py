"""Budgets: when a search stops. Pure; what was spent is passed in, nothing reads a clock."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent in total, earlier parts of a resumed search included; None is no bound."""

    trials: int
    seconds: float | None = None
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """What has been spent so far. Time decides when to stop, never what a trial contains."""

    trials: int = 0
    seconds: float = 0.0
    cost_usd: float = 0.0


def exhausted(budget: Budget, spent: Spent) -> str | None:
    """Why the search ends now, in words; None while another trial may start."""
    if spent.trials >= budget.trials:
        return f"all {budget.trials} trials are done"
    if budget.seconds is not None and spent.seconds >= budget.seconds:
        return f"{spent.seconds:.0f} s are spent, the budget is {budget.seconds:g} s"
    if budget.cost_usd is not None and spent.cost_usd >= budget.cost_usd:
        return f"{spent.cost_usd:.4g} USD are spent, the budget is {budget.cost_usd:g} USD"
    return None
