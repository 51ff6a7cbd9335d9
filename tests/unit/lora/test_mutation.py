"""Mutations are as large as they were asked to be, relative to the module, whatever its scale."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from agentlab.errors import UsageError
from agentlab.lora.delta import LoraDelta, zero
from agentlab.lora.mutation import Mutated, mutate_values, new_directions, rotate
from tests.unit.lora.deltas import dense, families, off, random_delta, relative_error

RELATIVE = st.floats(0.001, 0.5)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def realised(parent: LoraDelta, child: Mutated) -> float:
    return relative_error(child.delta.dense(), dense(parent))


@given(families(most=1), RELATIVE, st.integers(0, 2**32))
def test_values_drift_along_fixed_directions_and_the_change_is_reported(
    family: list[LoraDelta], relative: float, seed: int
) -> None:
    parent = family[0]
    child = mutate_values(parent, relative, seeded(seed))
    assert child.change == pytest.approx(realised(parent, child), abs=1e-9)
    u, s, vt = np.linalg.svd(dense(parent), full_matrices=False)
    s = s[: min(parent.rank, *parent.shape)]
    drift = np.exp(relative * torch.randn(len(s), generator=seeded(seed), dtype=torch.float64).numpy())
    expected = (u[:, : len(s)] * (s * drift)) @ vt[: len(s)]
    assert off(child.delta.dense(), expected) <= 1e-5 * np.linalg.norm(expected)


def test_values_change_by_the_asked_share_in_the_root_mean_square() -> None:
    parent = random_delta((30, 20), 8, seed=1, scale=1e-4)
    changes = [mutate_values(parent, 0.05, seeded(seed)).change for seed in range(200)]
    assert math.sqrt(np.mean(np.square(changes))) == pytest.approx(0.05, rel=0.1)


@given(families(most=1), RELATIVE, st.integers(0, 2**32))
def test_a_rotation_changes_by_exactly_the_asked_share_and_keeps_strengths(
    family: list[LoraDelta], relative: float, seed: int
) -> None:
    parent = family[0]
    assume(2 * parent.rank <= min(parent.shape))
    child = rotate(parent, relative, seeded(seed))
    assert child.change == pytest.approx(relative, rel=1e-6)
    assert realised(parent, child) == pytest.approx(relative, rel=1e-6)
    before, after = (np.linalg.svd(matrix, compute_uv=False) for matrix in (dense(parent), child.delta.dense()))
    assert np.allclose(before, after, rtol=0, atol=1e-9 * before[0])


def test_where_few_directions_are_free_some_turn_further() -> None:
    parent = random_delta((10, 9), 7, seed=1)
    child = rotate(parent, 0.05, seeded(1))
    assert child.change == pytest.approx(0.05, rel=1e-6)
    with pytest.raises(UsageError, match="cannot be rotated"):
        rotate(random_delta((10, 9), 9, seed=1), 0.05, seeded(1))


@given(families(most=1), RELATIVE, st.integers(1, 3), st.integers(0, 2**32))
def test_new_directions_come_on_top_where_there_is_room(
    family: list[LoraDelta], relative: float, count: int, seed: int
) -> None:
    parent = family[0]
    child = new_directions(parent, relative, count, parent.rank + count, seeded(seed))
    assert child.change == pytest.approx(relative, rel=1e-6)
    assert realised(parent, child) == pytest.approx(relative, rel=1e-6)
    assert child.delta.rank <= parent.rank + count


def test_where_there_is_none_they_take_the_place_of_the_weakest() -> None:
    parent = random_delta((30, 20), 8, seed=1, decay=0.5)
    child = new_directions(parent, 0.05, 2, 8, seeded(1))
    weakest = np.linalg.svd(dense(parent), compute_uv=False)[6:]
    expected = math.hypot(0.05, np.linalg.norm(weakest) / np.linalg.norm(dense(parent)))
    assert child.delta.rank == 8
    assert child.change == pytest.approx(expected, rel=0.2)
    assert child.change == pytest.approx(realised(parent, child), rel=1e-6)


def test_nothing_mutates_to_nothing() -> None:
    for child in (
        mutate_values(zero((6, 4)), 0.1, seeded(1)),
        rotate(zero((6, 4)), 0.1, seeded(1)),
        new_directions(zero((6, 4)), 0.1, 1, 2, seeded(1)),
    ):
        assert child.change == 0
        assert not child.delta.dense().any()


def test_a_seed_gives_the_same_child_again() -> None:
    parent = random_delta((30, 20), 4, seed=1)
    for mutate in (mutate_values, rotate):
        assert torch.equal(mutate(parent, 0.1, seeded(1)).delta.dense(), mutate(parent, 0.1, seeded(1)).delta.dense())


@pytest.mark.parametrize("relative", [0, -0.1, 1.5, math.nan])
def test_steps_out_of_range_are_refused(relative: float) -> None:
    parent = random_delta((30, 20), 4, seed=1)
    for mutate in (mutate_values, rotate):
        with pytest.raises(UsageError, match="times the norm"):
            mutate(parent, relative, seeded(1))
    with pytest.raises(UsageError, match="exceed the rank"):
        new_directions(parent, 0.1, 5, 4, seeded(1))
