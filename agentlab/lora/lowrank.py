"""The best low-rank approximation of a dense matrix, by block Lanczos instead of a dense SVD."""

import torch  # noqa: TID253 - reached lazily, through the sparse operators only

from agentlab.lora.blend import Truncated, check_rank
from agentlab.lora.delta import Delta

_OVERSAMPLING = 10  # columns of a block beyond the wanted rank (Halko, Martinsson and Tropp, 2011)
_GAIN = 1e-6  # a step that captures less of what is left than this is the last one
_BLOCKS = 24  # of the Krylov basis at most


def factor(matrix: torch.Tensor, rank: int) -> Truncated:
    """The nearest matrix of at most this rank, up to a residual that is longer by a share of 1e-5 at most.

    The leading right singular vectors come from a block Krylov space of `matrix.T @ matrix` (Musco and Musco, 2015),
    which converges also where the spectrum is flat, as it is after entries were dropped at random. It starts from a
    fixed seed: the result is a function of its arguments. A small matrix gets the whole space, and so the exact answer.

    Args:
        matrix: (outputs, inputs), float64.
        rank: at least 1.

    Raises:
        UsageError: the rank is below 1.
    """
    check_rank(rank)
    if matrix.shape[0] < matrix.shape[1]:
        found = factor(matrix.T, rank)
        return Truncated(found.delta.transposed(), found.total, found.lost)
    right = _right_vectors(matrix, rank)
    image = matrix @ right  # its columns are orthogonal, and as long as the singular values
    root = torch.linalg.vector_norm(image, dim=0).sqrt()
    total = float(matrix.square().sum())
    lost = max(0.0, total - float(image.square().sum()))
    return Truncated(Delta((right * root).T, image / root.where(root > 0, 1.0)), total, lost)


def _right_vectors(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    """The leading right singular vectors (inputs, at most rank) of a tall matrix, largest value first."""
    inputs = matrix.shape[1]
    width = rank + _OVERSAMPLING
    if 2 * width >= inputs:
        return _ritz(matrix.T @ matrix)[1][:, :rank]
    start = torch.randn(inputs, width, generator=torch.Generator().manual_seed(0), dtype=matrix.dtype)
    basis = torch.linalg.qr(start.to(matrix.device)).Q
    images = matrix.T @ (matrix @ basis)
    total, captured = float(matrix.square().sum()), 0.0
    while True:
        energies, vectors = _ritz(basis.T @ images)
        before, captured = captured, float(energies[:rank].sum())
        enough = captured - before <= _GAIN * max(total - captured, _GAIN * total)
        if enough or basis.shape[1] + width > min(inputs, _BLOCKS * width):
            found: torch.Tensor = basis @ vectors[:, :rank]
            return found
        block = images[:, -width:]
        for _ in range(2):  # once leaves rounding errors of the projection
            block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q
        basis = torch.cat([basis, block], dim=1)
        images = torch.cat([images, matrix.T @ (matrix @ block)], dim=1)


def _ritz(projected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues and vectors of a symmetric matrix, largest first."""
    values, vectors = torch.linalg.eigh(projected)
    return values.flip(0), vectors.flip(1)
