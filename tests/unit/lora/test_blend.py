"""Sums are exact, truncation is optimal, and nothing depends on how a parent is factored."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import DataError, UsageError
from agentlab.lora.blend import concatenate, kept_energy, slerp, truncate, weighted_sum
from agentlab.lora.delta import LoraDelta, zero
from tests.unit.lora.deltas import TOLERANCE, dense, families, off, random_delta, relative_error, weights_for


@given(st.data(), families())
def test_concatenation_is_the_exact_weighted_sum(data: st.DataObject, family: list[LoraDelta]) -> None:
    weights = data.draw(weights_for(family))
    child = concatenate(family, weights)
    expected = sum(weight * dense(delta) for weight, delta in zip(weights, family, strict=True))
    assert off(child.dense(), expected) <= 1e-12 * sum(np.linalg.norm(dense(delta)) for delta in family)
    assert child.rank == sum(delta.rank for delta, weight in zip(family, weights, strict=True) if weight)


@given(families(most=1), st.integers(1, 20))
def test_truncation_leaves_the_smallest_possible_residual(family: list[LoraDelta], rank: int) -> None:
    matrix = dense(family[0])
    truncation = truncate(family[0], rank)
    values = np.linalg.svd(matrix, compute_uv=False)
    optimum, size = np.linalg.norm(values[rank:]), np.linalg.norm(matrix)
    residual = off(truncation.delta.dense(), matrix)
    assert residual <= optimum * (1 + TOLERANCE) + TOLERANCE * 1e-5 * size
    assert truncation.delta.rank <= rank
    assert truncation.kept_share == pytest.approx(1 - (optimum / size) ** 2, abs=1e-9)


@given(st.data(), families(least=2), st.integers(1, 20))
def test_a_blend_stored_in_float32_is_within_the_tolerance(
    data: st.DataObject, family: list[LoraDelta], rank: int
) -> None:
    weights = data.draw(weights_for(family).filter(any))
    child = weighted_sum(family, weights, rank).delta
    stored = LoraDelta(child.a.float(), child.b.float())
    matrix = sum(weight * dense(delta) for weight, delta in zip(weights, family, strict=True))
    s = np.linalg.svd(matrix, compute_uv=False)
    residual = np.linalg.norm(dense(stored) - matrix)
    assert residual <= np.linalg.norm(s[rank:]) * (1 + TOLERANCE) + TOLERANCE * np.linalg.norm(s)


def test_parents_that_nearly_cancel_lose_no_digits() -> None:
    first = random_delta((30, 20), 4, seed=1)
    second = LoraDelta(first.a, first.b + 1e-6 * torch.randn(30, 4, generator=torch.Generator().manual_seed(2)))
    child = weighted_sum((first, second), (1, -1), 4).delta
    assert relative_error(child.dense(), dense(first) - dense(second)) < TOLERANCE


def test_the_result_does_not_depend_on_how_a_parent_is_factored() -> None:
    first, second = random_delta((30, 20), 4, seed=1), random_delta((30, 20), 4, seed=2)
    gauge = torch.randn(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 3 * torch.eye(4)
    turned = LoraDelta(torch.linalg.inv(gauge) @ first.a.double(), first.b.double() @ gauge)
    plain, turned_child = (weighted_sum((parent, second), (0.6, 0.4), 4).delta.dense() for parent in (first, turned))
    assert relative_error(turned_child, plain.numpy()) < 1e-12


def test_averaging_the_factors_instead_would_depend_on_it() -> None:
    """Why the algebra exists: the same adapter, factored in another way, averages to half of itself."""
    adapter = random_delta((60, 50), 8, seed=1)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3))).Q
    same = LoraDelta(turn.T @ adapter.a, adapter.b @ turn)
    factors = LoraDelta((adapter.a + same.a) / 2, (adapter.b + same.b) / 2)
    assert relative_error(factors.dense(), dense(adapter)) > 0.3
    assert relative_error(weighted_sum((adapter, same), (0.5, 0.5), 8).delta.dense(), dense(adapter)) < TOLERANCE


def test_order_of_parents_does_not_matter_and_weights_1_and_0_are_the_first() -> None:
    first, second = random_delta((30, 20), 4, seed=1), random_delta((30, 20), 7, seed=2)
    one, swapped = weighted_sum((first, second), (0.3, 0.7), 5), weighted_sum((second, first), (0.7, 0.3), 5)
    assert relative_error(one.delta.dense(), swapped.delta.dense().numpy()) < 1e-12
    assert relative_error(weighted_sum((first, second), (1, 0), 4).delta.dense(), dense(first)) < 1e-12


def test_fifty_generations_of_the_identity_do_not_drift() -> None:
    start = random_delta((60, 40), 8, seed=1)
    child = start
    for _ in range(50):
        offspring = weighted_sum((child, child), (0.5, 0.5), 8).delta
        child = LoraDelta(offspring.a.float(), offspring.b.float())
    assert relative_error(child.dense(), dense(start)) < TOLERANCE


@given(families(least=2, most=2), st.floats(0, 1))
def test_slerp_is_the_point_on_the_arc(family: list[LoraDelta], fraction: float) -> None:
    first, second = (dense(delta) for delta in family)
    angle = np.arccos(np.clip((first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second), -1, 1))
    near, far = (1 - fraction, fraction)
    if np.sin(angle) > 1e-6:
        near, far = np.sin(near * angle) / np.sin(angle), np.sin(far * angle) / np.sin(angle)
    expected = near * first + far * second
    size = np.linalg.norm(first) + np.linalg.norm(second)
    assert off(slerp(*family, fraction).dense(), expected) <= TOLERANCE * 1e-3 * size


def test_slerp_keeps_the_norm_that_a_straight_line_would_lose() -> None:
    first = random_delta((60, 40), 4, seed=1)
    second = random_delta((60, 40), 4, seed=2)
    second = second.scaled(float(first.dense().norm() / second.dense().norm()))
    assert float(slerp(first, second, 0.5).dense().norm()) == pytest.approx(float(first.dense().norm()), rel=1e-6)
    assert concatenate((first, second), (0.5, 0.5)).dense().norm() < 0.75 * first.dense().norm()


def test_slerp_towards_nothing_is_a_straight_line() -> None:
    first = random_delta((6, 4), 2, seed=1)
    assert relative_error(slerp(first, zero((6, 4)), 0.25).dense(), 0.75 * dense(first)) < 1e-12
    assert relative_error(slerp(first, first, 0.25).dense(), dense(first)) < 1e-9


def test_nothing_plus_nothing_is_nothing_and_loses_nothing() -> None:
    result = weighted_sum((zero((6, 4)), zero((6, 4))), (1, 1), 2)
    assert result.delta.shape == (6, 4)
    assert result.kept_share == 1


def test_parents_that_cancel_leave_nothing_but_exact_zeros() -> None:
    """Rounding errors have a spectrum too, of which a share would be kept."""
    parent = random_delta((30, 20), 4, seed=1)
    result = weighted_sum([parent, parent], [1, -1], 4)
    assert (result.total, result.lost, result.kept_share) == (0, 0, 1)
    assert not result.delta.dense().any()
    assert weighted_sum([parent, parent], [1, 1e-9 - 1], 4).total > 0


def test_kept_energy_of_an_adapter_counts_modules_by_their_energy() -> None:
    strong = truncate(random_delta((30, 20), 4, seed=1, scale=1000), 4)
    weak = truncate(random_delta((30, 20), 4, seed=1), 1)
    assert weak.kept_share < 0.6
    assert kept_energy([strong, weak]) > 0.999
    assert kept_energy([]) == 1


def test_bad_calls_are_refused_with_the_reason() -> None:
    first, second = random_delta((6, 4), 2, seed=1), random_delta((6, 5), 2, seed=1)
    with pytest.raises(DataError, match="different shapes"):
        concatenate((first, second), (1, 1))
    with pytest.raises(UsageError, match="2 finite weights"):
        concatenate((first, first), (1,))
    with pytest.raises(UsageError, match="2 finite weights"):
        concatenate((first, first), (1, math.nan))
    with pytest.raises(UsageError, match="no adapter"):
        concatenate((), ())
    with pytest.raises(UsageError, match="rank 0"):
        truncate(first, 0)
    with pytest.raises(UsageError, match="fraction"):
        slerp(first, first, 1.5)
