"""What an adapter adds to one weight matrix, kept as its two thin factors."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch  # noqa: TID253 - reached lazily: no command imports the algebra before it has adapters to work on

from agentlab.errors import DataError

_BLOCK = 256  # rows of a dense matrix that are held at a time


@dataclass(frozen=True, slots=True, eq=False)
class LoraDelta:
    """The matrix `scale * b @ a` of shape (outputs, inputs); the factors alone mean nothing.

    Any invertible matrix between the factors leaves the product as it is, so that averaging the factors of two
    adapters is not averaging the adapters. Every operator here is a function of the product.

    Raises:
        DataError: the factors do not fit together.
    """

    a: torch.Tensor  # (rank, inputs), any float type
    b: torch.Tensor  # (outputs, rank), any float type
    scale: float = 1.0  # alpha / rank, or alpha / sqrt(rank) for rank-stabilised LoRA (arXiv 2312.03732)

    def __post_init__(self) -> None:
        if self.a.ndim != 2 or self.b.ndim != 2 or self.a.shape[0] != self.b.shape[1]:
            raise DataError(f"Factor shapes {tuple(self.b.shape)} and {tuple(self.a.shape)} do not match.")

    @property
    def shape(self) -> tuple[int, int]:
        return self.b.shape[0], self.a.shape[1]

    @property
    def rank(self) -> int:
        """The inner dimension: an upper bound of the matrix's rank."""
        return self.a.shape[0]

    def scaled(self, weight: float) -> "LoraDelta":
        return LoraDelta(self.a, self.b, self.scale * weight)

    def transpose(self) -> "LoraDelta":
        return LoraDelta(self.b.T, self.a.T, self.scale)

    def fold_scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The factors in float64 with the scale in `b`: `b @ a` is the delta."""
        return self.a.double(), self.b.double() * self.scale

    def dense(self) -> torch.Tensor:
        """The matrix in float64: for tests and for merging, not for the operators."""
        a, b = self.fold_scale()
        return b @ a

    def row_blocks(self) -> Iterator[torch.Tensor]:
        """The dense matrix in float64, some rows at a time."""
        a, b = self.fold_scale()
        for row in range(0, len(b), _BLOCK):
            yield b[row : row + _BLOCK] @ a


def zero(shape: tuple[int, int]) -> LoraDelta:
    """A delta of rank 0: what an adapter does to a module it does not target."""
    return LoraDelta(torch.zeros(0, shape[1]), torch.zeros(shape[0], 0))
