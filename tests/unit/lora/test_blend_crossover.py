"""A child of two parents holds whole singular directions of theirs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import DataError, UsageError
from agentlab.lora.blend import cross_directions
from agentlab.lora.delta import LoraDelta
from tests.unit.lora.deltas import TOLERANCE, dense, families, off, random_delta, relative_error


@given(families(least=2, most=2), st.integers(0, 2**32))
def test_each_direction_comes_whole_from_one_parent(family: list[LoraDelta], seed: int) -> None:
    child = cross_directions(*family, 0.5, torch.Generator().manual_seed(seed))
    parents = [np.linalg.svd(dense(delta), full_matrices=False) for delta in family]
    counts = [min(delta.rank, *delta.shape) for delta in family]
    picks = torch.rand(max(counts), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) < 0.5
    expected = np.zeros(child.shape)
    for slot, from_second in enumerate(picks):
        u, s, vt = parents[int(from_second)]
        if slot < counts[int(from_second)]:
            expected += s[slot] * np.outer(u[:, slot], vt[slot])
    size = sum(np.linalg.norm(dense(delta)) for delta in family)
    assert off(child.dense(), expected) <= TOLERANCE * size
    assert child.rank <= max(counts)


def test_shares_0_and_1_are_the_parents() -> None:
    first, second = random_delta((9, 7), 3, seed=1), random_delta((9, 7), 5, seed=2)
    generator = torch.Generator().manual_seed(0)
    assert relative_error(cross_directions(first, second, 0, generator).dense(), dense(first)) < 1e-12
    assert relative_error(cross_directions(first, second, 1, generator).dense(), dense(second)) < 1e-12


def test_two_ways_of_writing_one_parent_have_the_parent_as_child() -> None:
    first = random_delta((9, 7), 3, seed=1)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3))).Q
    same = LoraDelta(turn.T @ first.a, first.b @ turn)
    child = cross_directions(first, same, 0.5, torch.Generator().manual_seed(0))
    assert relative_error(child.dense(), dense(first)) < TOLERANCE


def test_a_seed_gives_the_same_child_again_and_another_seed_another() -> None:
    first, second = random_delta((9, 7), 5, seed=1), random_delta((9, 7), 5, seed=2)
    one, same_seed, new_seed = (
        cross_directions(first, second, 0.5, torch.Generator().manual_seed(seed)).dense() for seed in (1, 1, 5)
    )
    assert torch.equal(one, same_seed)
    assert not torch.allclose(one, new_seed)


def test_bad_calls_are_refused() -> None:
    first = random_delta((9, 7), 3, seed=1)
    with pytest.raises(UsageError, match="share"):
        cross_directions(first, first, 1.5, torch.Generator())
    with pytest.raises(DataError, match="different shapes"):
        cross_directions(first, random_delta((7, 9), 3, seed=1), 0.5, torch.Generator())
