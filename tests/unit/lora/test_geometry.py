"""Norms, angles and distances are those of the dense matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given

from agentlab.errors import DataError
from agentlab.lora.delta import LoraDelta, zero
from agentlab.lora.geometry import cosine, distance, inner, norm
from tests.unit.lora.deltas import dense, families, random_delta


@given(families(least=2, most=2))
def test_they_are_those_of_the_dense_matrices(family: list[LoraDelta]) -> None:
    first, second = (dense(delta) for delta in family)
    sizes = np.linalg.norm(first), np.linalg.norm(second)
    assert inner(*family) == pytest.approx((first * second).sum(), abs=1e-10 * sizes[0] * sizes[1])
    assert norm(family[0]) == pytest.approx(sizes[0], rel=1e-10)
    assert distance(*family) == pytest.approx(np.linalg.norm(first - second), abs=1e-10 * sum(sizes))
    assert cosine(*family) == pytest.approx((first * second).sum() / sizes[0] / sizes[1], abs=1e-9)


def test_the_distance_of_near_twins_keeps_its_digits() -> None:
    first = random_delta((30, 20), 4, seed=1)
    second = LoraDelta(first.a, first.b + 1e-6 * torch.randn(30, 4, generator=torch.Generator().manual_seed(2)))
    assert distance(first, second) == pytest.approx(np.linalg.norm(dense(first) - dense(second)), rel=1e-6)


def test_nothing_has_no_length_and_no_direction() -> None:
    delta = random_delta((6, 4), 2, seed=1)
    assert norm(zero((6, 4))) == 0
    assert cosine(delta, zero((6, 4))) == 0
    assert distance(delta, zero((6, 4))) == pytest.approx(norm(delta))


def test_a_squared_distance_is_that_of_the_inner_products() -> None:
    for n in range(3):
        one, two = random_delta((6, 4), 2, seed=n), random_delta((6, 4), 3, seed=n + 10)
        assert inner(one, two) == pytest.approx(inner(two, one))
        squares = inner(one, one) + inner(two, two) - 2 * inner(one, two)
        assert distance(one, two) ** 2 == pytest.approx(squares)


def test_different_shapes_cannot_be_compared() -> None:
    for measure in (inner, distance, cosine):
        with pytest.raises(DataError, match="cannot be compared"):
            measure(random_delta((6, 4), 2, seed=1), random_delta((4, 6), 2, seed=1))
