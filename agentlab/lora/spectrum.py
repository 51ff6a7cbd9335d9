"""Singular values and directions of a delta, without forming the matrix."""

from dataclasses import dataclass

import torch  # noqa: TID253 - reached lazily, through the operators only

from agentlab.lora.delta import LoraDelta


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """The thin singular value decomposition `u @ diag(s) @ v.T` in float64, largest value first.

    Shapes: u (outputs, k), s (k,), v (inputs, k) with k = min(rank, outputs, inputs).
    """

    u: torch.Tensor
    s: torch.Tensor
    v: torch.Tensor

    def delta(self) -> LoraDelta:
        """The decomposition as factors of equal norms, which train and mutate better than lopsided ones."""
        root = self.s.sqrt()
        return LoraDelta((self.v * root).T, self.u * root)

    def select(self, selection: torch.Tensor | slice) -> "Spectrum":
        return Spectrum(self.u[:, selection], self.s[selection], self.v[:, selection])

    @property
    def norm(self) -> float:
        return float(torch.linalg.vector_norm(self.s))


def decompose(delta: LoraDelta) -> Spectrum:
    """The whole spectrum of a delta."""
    return leading(delta, delta.rank)[0]


def leading(delta: LoraDelta, rank: int) -> tuple[Spectrum, torch.Tensor]:
    """The `rank` strongest directions of a delta, and all its singular values, largest first.

    By QR of both thin factors and a small SVD: O((outputs + inputs) rank² + rank³). The orthogonal factors are applied,
    never formed. In float64, because a blend of near-equal parents with opposite signs cancels most digits.
    """
    a, b = delta.fold_scale()
    left_factor, right_factor = _Reflected(b), _Reflected(a.T)
    u, s, vt = torch.linalg.svd(left_factor.upper @ right_factor.upper.T, full_matrices=False)
    return Spectrum(left_factor.apply(u[:, :rank]), s[:rank], right_factor.apply(vt[:rank].T)), s


def singular_values(delta: LoraDelta) -> torch.Tensor:
    """The values alone, (k,), float64: half the work."""
    a, b = delta.fold_scale()
    values: torch.Tensor = torch.linalg.svdvals(_Reflected(b).upper @ _Reflected(a.T).upper.T)
    return values


class _Reflected:
    """A QR decomposition whose orthogonal factor is kept as its Householder reflections."""

    def __init__(self, matrix: torch.Tensor) -> None:
        packed, self._scales = torch.geqrf(matrix)
        count = min(matrix.shape)
        self._vectors = packed[:, :count]
        self.upper = packed[:count].triu()

    def apply(self, small: torch.Tensor) -> torch.Tensor:
        """The orthogonal factor, (n, k), times a matrix of k rows."""
        padded = small.new_zeros(self._vectors.shape[0], small.shape[1])
        padded[: len(small)] = small
        return torch.ormqr(self._vectors, self._scales, padded)
