"""TIES and DARE act on the entries of the change, in row blocks, and are factored afterwards."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import UsageError
from agentlab.lora.delta import LoraDelta
from agentlab.lora.sparse import dare, dare_matrix, ties, ties_matrix
from tests.unit.lora.deltas import TOLERANCE, dense, families, off, random_delta, relative_error, weights_for


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dense_ties(matrices: list[np.ndarray], weights: list[float], density: float) -> np.ndarray:
    trimmed = []
    for matrix, weight in zip(matrices, weights, strict=True):
        count = max(1, matrix.size - round(matrix.size * (1 - density)))
        order = np.argsort(-np.abs(matrix), axis=None, kind="stable")[:count]
        mask = np.zeros(matrix.size, dtype=bool)
        mask[order] = True
        trimmed.append(weight * np.where(mask.reshape(matrix.shape), matrix, 0))
    stack = np.stack(trimmed)
    agrees = (np.sign(stack) == np.sign(stack.sum(axis=0))) & (stack != 0)
    return (stack * agrees).sum(axis=0) / np.maximum(agrees.sum(axis=0), 1)


@given(st.data(), families(least=2), st.floats(0.1, 1))
def test_ties_is_that_of_the_dense_matrices(data: st.DataObject, family: list[LoraDelta], density: float) -> None:
    weights = data.draw(weights_for(family))
    expected = dense_ties([dense(delta) for delta in family], weights, density)
    actual = ties_matrix(family, weights, density)
    size = max(np.linalg.norm(expected), 1e-9 * sum(np.linalg.norm(dense(delta)) for delta in family))
    assert off(actual, expected) <= TOLERANCE * size
    full = ties(family, weights, density, min(family[0].shape))
    assert off(full.delta.dense(), expected) <= TOLERANCE * size


def test_ties_in_row_blocks_is_that_of_the_whole() -> None:
    family = [random_delta((600, 20), 4, seed=seed) for seed in (1, 2, 3)]
    expected = dense_ties([dense(delta) for delta in family], [1.0, 0.5, 2.0], 0.3)
    assert relative_error(ties_matrix(family, [1.0, 0.5, 2.0], 0.3), expected) < 1e-12


def test_opposite_parents_do_not_average_to_nothing_as_a_plain_sum_would() -> None:
    strong, weak = random_delta((20, 10), 3, seed=1), random_delta((20, 10), 3, seed=1).scaled(-0.5)
    assert relative_error(ties((strong, weak), (1, 1), 1.0, 3).delta.dense(), dense(strong)) < TOLERANCE


def test_truncated_ties_leaves_the_optimal_residual() -> None:
    family = [random_delta((90, 60), 4, seed=seed) for seed in (1, 2)]
    matrix = ties_matrix(family, (1, 1), 0.4).numpy()
    truncation = ties(family, (1, 1), 0.4, 6)
    optimum = np.linalg.norm(np.linalg.svd(matrix, compute_uv=False)[6:])
    assert off(truncation.delta.dense(), matrix) <= optimum * (1 + TOLERANCE)
    assert truncation.kept_share == pytest.approx(1 - (optimum / np.linalg.norm(matrix)) ** 2, abs=1e-6)
    assert truncation.delta.rank == 6


@given(families(most=1), st.floats(0.1, 1), st.integers(0, 2**32))
def test_dare_drops_entries_or_enlarges_them(family: list[LoraDelta], density: float, seed: int) -> None:
    matrix = dare_matrix(family, [1.0], density, seeded(seed)).numpy()
    grown = dense(family[0]) / density
    stays = matrix != 0
    assert np.allclose(matrix[stays], grown[stays], rtol=1e-9, atol=1e-12 * np.abs(grown).max())


def test_dare_keeps_the_asked_share_and_the_mean_of_many_draws_is_the_parent() -> None:
    parent = random_delta((600, 20), 4, seed=1)
    draws = [dare_matrix((parent,), (1,), 0.25, seeded(seed)) for seed in range(300)]
    assert np.mean([float((draw != 0).double().mean()) for draw in draws]) == pytest.approx(0.25, abs=0.005)
    assert relative_error(torch.stack(draws).mean(dim=0), dense(parent)) < 0.15


def test_dare_of_everything_is_the_weighted_sum_and_a_seed_gives_the_same_child() -> None:
    family = [random_delta((30, 20), 4, seed=seed) for seed in (1, 2)]
    full = dare(family, (0.3, 0.7), 1.0, 8, seeded(0)).delta
    assert relative_error(full.dense(), 0.3 * dense(family[0]) + 0.7 * dense(family[1])) < TOLERANCE
    one, same_seed, new_seed = (dare(family, (1, 1), 0.5, 8, seeded(n)).delta.dense() for n in (1, 1, 2))
    assert torch.equal(one, same_seed)
    assert not torch.allclose(one, new_seed)


@pytest.mark.parametrize("density", [0, -1, 1.5])
def test_densities_out_of_range_are_refused(density: float) -> None:
    with pytest.raises(UsageError, match="density"):
        ties((random_delta((6, 4), 2, seed=1),), (1,), density, 2)
