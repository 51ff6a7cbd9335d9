"""How far logits are apart, by hand."""

import math

import pytest
import torch

from agentlab.train.merge import compare_logits


def test_a_model_is_not_apart_from_itself() -> None:
    logits = [torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 5)]
    difference = compare_logits(logits, [tensor.clone() for tensor in logits])
    assert (difference.largest, difference.typical, difference.divergence, difference.agreement) == (0, 0, 0, 1)


def test_differences_are_those_of_the_formulas() -> None:
    """One token of two agrees, and the other one's odds are turned from 1:1 into 3:1."""
    first = [torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 1.0]])]
    second = [torch.tensor([[0.0, math.log(3)]]), torch.tensor([[2.0, 1.0]])]
    difference = compare_logits(first, second)
    assert difference.largest == pytest.approx(math.log(3))
    assert difference.typical == pytest.approx(math.log(3) / 2)
    assert difference.divergence == pytest.approx((0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)) / 2)
    assert difference.agreement == 0.5


def test_what_a_constant_adds_changes_logits_and_no_probability() -> None:
    logits = [torch.tensor([[1.0, 2.0, 4.0]])]
    difference = compare_logits(logits, [logits[0] + 3])
    assert (difference.largest, difference.agreement) == (3, 1)
    assert difference.divergence == pytest.approx(0, abs=1e-12)
