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
    copied_weights = {name: nn.Parameter(weight.detach().clone()) for name, weight in weights.items()}
    second_optimizer = adamw(copied_weights, TrainingConfig(), "cpu")
    restore(second_optimizer, copied_weights, dict(sorted(state.items())))
    assert all(torch.equal(value, state[name]) for name, value in state_of(second_optimizer, copied_weights).items())
    _stepped(weights, optimizer)
    _stepped(copied_weights, second_optimizer)
    assert all(torch.equal(weight, copied_weights[name]) for name, weight in weights.items())


@pytest.mark.parametrize("change", [{"c.exp_avg": torch.ones(4)}, {"a.exp_avg": torch.ones(3, 2)}])
def test_a_state_that_does_not_fit_is_refused(change: dict[str, torch.Tensor]) -> None:
    weights = _weights()
    with pytest.raises(ValueError, match="does not match"):
        restore(adamw(weights, TrainingConfig(), "cpu"), weights, change)
