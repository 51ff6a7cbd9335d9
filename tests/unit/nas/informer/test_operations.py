"""Dropout drawn four elements at a time is dropout."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentlab.nas.informer.operations import Dropout


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_a_share_p_is_zero_and_the_rest_is_scaled_up(p):
    torch.manual_seed(0)
    output = Dropout(p)(torch.ones(400_000))
    assert output.eq(0).float().mean().item() == pytest.approx(p, abs=0.005)
    assert output.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-3)
    assert output.mean().item() == pytest.approx(1, abs=0.02)


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    zero = Dropout(0.5)(torch.ones(100_000, 4)).eq(0).float()
    assert torch.corrcoef(zero.T).sub(torch.eye(4)).abs().max() < 0.02


def test_scoring_and_a_rate_of_zero_change_nothing():
    x = torch.randn(7)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_the_seed_decides_and_gradients_pass_where_the_input_did():
    x = torch.ones(5, 3, requires_grad=True)
    torch.manual_seed(3)
    first = Dropout(0.5)(x)
    first.sum().backward()
    assert torch.equal(x.grad, first)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.5)(x), first)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_every_shape_is_kept(shape):
    assert Dropout(0.5)(torch.ones(shape)).shape == tuple(shape)
