"""The block Lanczos approximation leaves no larger residual than a dense SVD."""

import numpy as np
import pytest
import torch

from agentlab.errors import UsageError
from agentlab.lora.sparse import factor
from tests.unit.lora.deltas import TOLERANCE, off, random_delta, relative_error


def spectrum_matrix(shape: tuple[int, int], values: np.ndarray, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(side, len(values), generator=generator, dtype=torch.float64)).Q for side in shape
    )
    return (left * torch.from_numpy(values)) @ right.T


SPECTRA = {
    "flat": np.ones(120),
    "one step": np.where(np.arange(120) < 8, 3.0, 1.0),
    "a step too late": np.where(np.arange(120) < 9, 3.0, 1.0),
    "slow": 1 / np.arange(1, 121) ** 0.5,
    "fast": 0.5 ** np.arange(120),
    "exactly low": np.where(np.arange(120) < 5, 1.0, 0.0),
    "noise": np.linspace(2, 0, 120),
}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("shape", [(200, 130), (130, 200)])
def test_the_residual_is_optimal_for_every_kind_of_spectrum(spectrum: str, shape: tuple[int, int]) -> None:
    values = SPECTRA[spectrum]
    matrix = spectrum_matrix(shape, values, seed=1)
    approximation = factor(matrix, 8)
    optimum, size = np.linalg.norm(values[8:]), np.linalg.norm(values)
    residual = off(approximation.delta.dense(), matrix)
    assert residual <= optimum * (1 + TOLERANCE) + TOLERANCE * size
    assert approximation.kept_share == pytest.approx(1 - (residual / size) ** 2, abs=1e-6)


def test_random_noise_and_a_sparse_matrix() -> None:
    noise = torch.randn(300, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for matrix in (noise, noise * (noise > 1.5)):
        values = np.linalg.svd(matrix.numpy(), compute_uv=False)
        residual = off(factor(matrix, 16).delta.dense(), matrix)
        assert residual <= np.linalg.norm(values[16:]) * (1 + TOLERANCE)


def test_a_small_matrix_is_solved_exactly() -> None:
    matrix = random_delta((9, 5), 5, seed=1).dense()
    assert relative_error(factor(matrix, 5).delta.dense(), matrix.numpy()) < 1e-12
    assert factor(matrix, 5).kept_share == pytest.approx(1)


def test_zero_is_zero_and_the_same_matrix_has_the_same_factors() -> None:
    assert not factor(torch.zeros(90, 80, dtype=torch.float64), 3).delta.dense().any()
    matrix = random_delta((90, 80), 60, seed=1).dense()
    assert torch.equal(factor(matrix, 3).delta.a, factor(matrix, 3).delta.a)
    with pytest.raises(UsageError, match="rank 0"):
        factor(matrix, 0)
