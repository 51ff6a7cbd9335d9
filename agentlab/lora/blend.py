"""Linear operators: exact sums by concatenation, the best approximation of a given rank, spherical interpolation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch  # noqa: TID253 - reached lazily, when adapters are blended

from agentlab.errors import DataError, UsageError
from agentlab.lora import geometry
from agentlab.lora.delta import Delta, zero
from agentlab.lora.spectrum import leading

_EPS = torch.finfo(torch.float64).eps
_PARALLEL = 1e-6  # below this sine of the angle, the arc and its chord differ by less than 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Truncated:
    """A delta of bounded rank; `total` and `lost` are squared Frobenius norms of the whole and of what was cut."""

    delta: Delta
    total: float
    lost: float

    @property
    def kept(self) -> float:
        """Share of the energy that was kept: 1 if nothing was lost, also where there was nothing to lose."""
        return 1.0 - self.lost / self.total if self.total > 0 else 1.0


def kept_energy(parts: Sequence[Truncated]) -> float:
    """The share that was kept of a whole adapter: modules count by their energy."""
    total = math.fsum(part.total for part in parts)
    return 1.0 - math.fsum(part.lost for part in parts) / total if total > 0 else 1.0


def concatenate(deltas: Sequence[Delta], weights: Sequence[float]) -> Delta:
    """The exact weighted sum: factors side by side, so that ranks add. Float64.

    Raises:
        UsageError: no delta, as many weights as deltas are not given, or a weight is no finite number.
        DataError: the shapes differ.
    """
    shape = shape_of(deltas)
    check_weights(deltas, weights)
    parts = [each.scaled(weight).folded() for each, weight in zip(deltas, weights, strict=True) if weight and each.rank]
    if not parts:
        return zero(shape)
    return Delta(torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts], dim=1))


def truncate(delta: Delta, rank: int) -> Truncated:
    """The nearest matrix of at most this rank in the Frobenius norm (Eckart and Young, 1936).

    Singular values that are rounding errors of the factors' product count as 0: parents that cancel leave nothing.

    Raises:
        UsageError: the rank is below 1.
    """
    check_rank(rank)
    kept, values = leading(delta, rank)
    sizes = [float(torch.linalg.vector_norm(factor, dtype=torch.float64)) for factor in (delta.a, delta.b)]
    error = _EPS * max(delta.shape) * sizes[0] * sizes[1] * abs(delta.scale)
    energy = values.where(values > error, 0.0).square()
    return Truncated(kept.select(kept.s > error).delta(), float(energy.sum()), float(energy[rank:].sum()))


def weighted_sum(deltas: Sequence[Delta], weights: Sequence[float], rank: int) -> Truncated:
    """The best approximation of rank `rank` to `sum(weight * delta)`. Errors: as `concatenate` and `truncate`."""
    return truncate(concatenate(deltas, weights), rank)


def slerp(first: Delta, second: Delta, fraction: float) -> Delta:
    """The point at `fraction` of the arc from `first` to `second` (Shoemake, 1985), exact: ranks add.

    Where the arc is not defined (a parent is zero, or both lie on a line) it is the point of the straight line.

    Raises:
        UsageError: the fraction is outside 0 to 1.
        DataError: the shapes differ.
    """
    if not 0 <= fraction <= 1:
        raise UsageError(f"{fraction} is not a fraction between 0 and 1.")
    weights = (1 - fraction, fraction)
    sizes = geometry.norm(first) * geometry.norm(second)
    angle = math.acos(max(-1.0, min(1.0, geometry.inner(first, second) / sizes))) if sizes > 0 else 0.0
    if math.sin(angle) > _PARALLEL:
        weights = (math.sin(weights[0] * angle) / math.sin(angle), math.sin(weights[1] * angle) / math.sin(angle))
    return concatenate((first, second), weights)


def shape_of(deltas: Sequence[Delta]) -> tuple[int, int]:
    """The common shape (outputs, inputs).

    Raises:
        UsageError: there is no delta.
        DataError: the shapes differ.
    """
    if not deltas:
        raise UsageError("There is no adapter to combine.")
    shapes = {each.shape for each in deltas}
    if len(shapes) > 1:
        raise DataError(
            f"The adapters change matrices of different shapes: {sorted(shapes)}.",
            hint="They were trained on different base models; combine adapters of one base model.",
        )
    return deltas[0].shape


def check_weights(deltas: Sequence[Delta], weights: Sequence[float]) -> None:
    """One finite weight per delta, or a `UsageError`."""
    if len(weights) != len(deltas) or not all(math.isfinite(weight) for weight in weights):
        raise UsageError(
            f"{len(deltas)} adapters need {len(deltas)} finite weights; these are {list(weights)}.",
            hint="Give one number per adapter, in the same order.",
        )


def check_rank(rank: int) -> None:
    """A rank of at least 1, or a `UsageError`."""
    if rank < 1:
        raise UsageError(f"An adapter cannot have rank {rank}.", hint="Give a rank of 1 or more.")
