"""The optimiser's state by name: back where it belongs, whatever the order it comes in."""

import pytest
import torch
from torch import nn

from agentlab.train.checkpoints import adamw, restore, state_of
from agentlab.train.config import TrainingConfig


def _weights() -> dict[str, nn.Parameter]:
    return {"b": nn.Parameter(torch.ones(3, 2)), "a": nn.Parameter(torch.ones(4))}


def _stepped(weights: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    sum((weight**2).sum() * (index + 1) for index, weight in enumerate(weights.values())).backward()  # type: ignore[union-attr]
    optimizer.step()


def test_a_state_comes_back_in_any_order_and_again() -> None:
    weights = _weights()
    optimizer = adamw(weights, TrainingConfig(), "cpu")
    _stepped(weights, optimizer)
    state = state_of(optimizer, weights)
    assert set(state) == {f"{name}.{kind}" for name in "ab" for kind in ("step", "exp_avg", "exp_avg_sq")}
    other = {name: nn.Parameter(weight.detach().clone()) for name, weight in weights.items()}
    again = adamw(other, TrainingConfig(), "cpu")
    restore(again, other, dict(sorted(state.items())))
    assert all(torch.equal(value, state[name]) for name, value in state_of(again, other).items())
    _stepped(weights, optimizer)
    _stepped(other, again)
    assert all(torch.equal(weight, other[name]) for name, weight in weights.items())


@pytest.mark.parametrize("change", [{"c.exp_avg": torch.ones(4)}, {"a.exp_avg": torch.ones(3, 2)}])
def test_a_state_that_does_not_fit_is_refused(change: dict[str, torch.Tensor]) -> None:
    weights = _weights()
    with pytest.raises(ValueError, match="does not fit"):
        restore(adamw(weights, TrainingConfig(), "cpu"), weights, change)
