"""TIES and DARE on the change itself: operators on single entries, whose result is factored again.

They look at the matrix entry by entry, so it has to be formed: one dense module at a time, from row blocks of its
parents. Their children are not of low rank; `Truncated.kept_share` says what the factors hold of them.
"""

from collections.abc import Iterator, Sequence

import torch  # noqa: TID253 - reached lazily, through the sparse operators only

from agentlab.errors import UsageError
from agentlab.lora.blend import BlendRecipe, Operator, Truncated, check_rank, check_weights, shape_of
from agentlab.lora.delta import LoraDelta

_OVERSAMPLING = 10  # columns of a block beyond the wanted rank (Halko, Martinsson and Tropp, 2011)
_GAIN = 1e-6  # a step that captures less of what is left than this is the last one
_BLOCKS = 24  # of the Krylov basis at most


def factor(matrix: torch.Tensor, rank: int) -> Truncated:
    """The nearest matrix of at most this rank to one in float64; its residual is longer by a share of 1e-5 at most.

    The leading right singular vectors come from a block Krylov space of `matrix.T @ matrix` (Musco and Musco, 2015),
    which converges also where the spectrum is flat, as it is after entries were dropped at random. It starts from a
    fixed seed: the result is a function of its arguments. A small matrix gets the whole space, and so the exact answer.

    Raises:
        UsageError: the rank is below 1.
    """
    check_rank(rank)
    if matrix.shape[0] < matrix.shape[1]:
        factored = factor(matrix.T, rank)
        return Truncated(factored.delta.transpose(), factored.total, factored.lost)
    right = _right_vectors(matrix, rank)
    image = matrix @ right  # its columns are orthogonal, and as long as the singular values
    root = torch.linalg.vector_norm(image, dim=0).sqrt()
    total = float(matrix.square().sum())
    lost_energy = max(0.0, total - float(image.square().sum()))
    return Truncated(LoraDelta((right * root).T, image / root.where(root > 0, 1.0)), total, lost_energy)


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
            leading_vectors: torch.Tensor = basis @ vectors[:, :rank]
            return leading_vectors
        block = images[:, -width:]
        for _ in range(2):  # once leaves rounding errors of the projection
            block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q
        basis = torch.cat([basis, block], dim=1)
        images = torch.cat([images, matrix.T @ (matrix @ block)], dim=1)


def _ritz(projected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues and vectors of a symmetric matrix, largest first."""
    values, vectors = torch.linalg.eigh(projected)
    return values.flip(0), vectors.flip(1)


def ties(deltas: Sequence[LoraDelta], weights: Sequence[float], density: float, rank: int) -> Truncated:
    """TIES merging (arXiv 2306.01708): trim each parent to its largest entries, elect a sign, average who agrees.

    Each parent keeps the share `density` of its entries and is multiplied by its weight. An entry's sign is that of the
    parents' sum; its value is the mean over the parents that have that sign and kept the entry.

    Raises:
        UsageError: weights, density or rank are out of range.
        DataError: the shapes differ.
    """
    return factor(ties_matrix(deltas, weights, density), rank)


def dare(
    deltas: Sequence[LoraDelta], weights: Sequence[float], density: float, rank: int, generator: torch.Generator
) -> Truncated:
    """DARE merging (arXiv 2311.03099): drop entries of each parent at random, enlarge the rest, sum up.

    An entry stays with probability `density` and is divided by it, so that its expectation does not change. Arguments
    and errors: as `ties`; the generator belongs to the CPU.
    """
    return factor(dare_matrix(deltas, weights, density, generator), rank)


def ties_matrix(deltas: Sequence[LoraDelta], weights: Sequence[float], density: float) -> torch.Tensor:
    """What `ties` factors, (outputs, inputs), float64."""
    shape, device = _check(deltas, weights, density)
    merged = torch.empty(shape, dtype=torch.float64, device=device)
    limits = [_limit(delta, density, merged) for delta in deltas]
    row = 0
    for blocks in _together(deltas):
        parents = zip(weights, blocks, limits, strict=True)
        trimmed = [weight * block.where(block.abs() >= limit, 0) for weight, block, limit in parents]
        elected = torch.stack(trimmed).sum(dim=0).sign()
        agreeing = torch.stack([(elected * block).clamp(min=0) for block in trimmed])
        rows = merged[row : row + len(elected)]
        torch.div(elected * agreeing.sum(dim=0), (agreeing > 0).sum(dim=0).clamp(min=1), out=rows)
        row += len(rows)
    return merged


def dare_matrix(
    deltas: Sequence[LoraDelta], weights: Sequence[float], density: float, generator: torch.Generator
) -> torch.Tensor:
    """What `dare` factors, (outputs, inputs), float64."""
    shape, device = _check(deltas, weights, density)
    merged = torch.zeros(shape, dtype=torch.float64, device=device)
    row = 0
    for blocks in _together(deltas):
        rows = merged[row : row + len(blocks[0])]
        for weight, block in zip(weights, blocks, strict=True):
            stays = torch.rand(block.shape, generator=generator, dtype=torch.float64) < density
            rows += weight / density * block * stays.to(device)
        row += len(rows)
    return merged


def _together(deltas: Sequence[LoraDelta]) -> Iterator[tuple[torch.Tensor, ...]]:
    return zip(*(delta.row_blocks() for delta in deltas), strict=True)


def _limit(delta: LoraDelta, density: float, room: torch.Tensor) -> float:
    """Magnitude of the smallest entry that stays; `room` is a buffer of the delta's shape, overwritten."""
    row = 0
    for block in delta.row_blocks():
        torch.abs(block, out=room[row : row + len(block)])
        row += len(block)
    if density == 1:
        return 0.0
    entries = room.view(-1).cpu().numpy()  # shares memory where the factors are on the CPU
    dropped = min(entries.size - 1, round(entries.size * (1 - density)))
    entries.partition(dropped)
    return float(entries[dropped])


def _check(
    deltas: Sequence[LoraDelta], weights: Sequence[float], density: float
) -> tuple[tuple[int, int], torch.device]:
    shape = shape_of(deltas)
    check_weights(deltas, weights)
    if not 0 < density <= 1:
        raise UsageError(f"A density of {density} is outside the range 0 to 1.", hint="0.5 keeps half of the entries.")
    return shape, deltas[0].a.device


def _ties(deltas: Sequence[LoraDelta], recipe: BlendRecipe, _: torch.Generator) -> Truncated:
    relative = [weight * len(recipe.weights) for weight in recipe.weights]
    return ties(deltas, relative, recipe.share, recipe.rank)


def _dare(deltas: Sequence[LoraDelta], recipe: BlendRecipe, generator: torch.Generator) -> Truncated:
    return dare(deltas, recipe.weights, recipe.share, recipe.rank, generator)


TIES, DARE = Operator(_ties, thins=True), Operator(_dare, thins=True)
