"""Inner products, norms and distances of deltas from their factors, all in the Frobenius sense.

They belong to one module; over a whole adapter inner products and squared norms add up.
"""

import torch  # noqa: TID253 - reached lazily, through the operators only

from agentlab.errors import DataError
from agentlab.lora.delta import LoraDelta
from agentlab.lora.spectrum import singular_values


def inner(first: LoraDelta, second: LoraDelta) -> float:
    """<D1, D2> = trace((B1' B2) (A2 A1')): two products of rank by rank.

    Raises:
        DataError: the shapes differ.
    """
    if first.shape != second.shape:
        raise DataError(f"Deltas of shapes {first.shape} and {second.shape} cannot be compared.")
    (a1, b1), (a2, b2) = first.fold_scale(), second.fold_scale()
    return float(((b1.T @ b2) * (a1 @ a2.T)).sum())


def norm(delta: LoraDelta) -> float:
    """Frobenius norm, to full precision also where the delta is a difference that cancels."""
    return float(torch.linalg.vector_norm(singular_values(delta)))


def distance(first: LoraDelta, second: LoraDelta) -> float:
    """Norm of the difference: not by way of the inner products, which would cancel digits. Errors: as `inner`."""
    if first.shape != second.shape:
        raise DataError(f"Deltas of shapes {first.shape} and {second.shape} cannot be compared.")
    (a1, b1), (a2, b2) = first.fold_scale(), second.fold_scale()
    return norm(LoraDelta(torch.cat([a1, a2]), torch.cat([b1, -b2], dim=1)))


def cosine(first: LoraDelta, second: LoraDelta) -> float:
    """Cosine of the angle between two deltas; 0 where one of them is zero. Errors: as `inner`."""
    both = norm(first) * norm(second)
    return inner(first, second) / both if both > 0 else 0.0
