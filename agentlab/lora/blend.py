"""What an operator is, the linear ones, and crossover by singular directions, of which a child inherits whole ones.

An operator combines the changes that adapters make to one module; `operators` is the table of them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch  # noqa: TID253 - reached lazily, when adapters are blended

from agentlab.errors import DataError, UsageError
from agentlab.lora import geometry
from agentlab.lora.delta import LoraDelta, zero
from agentlab.lora.spectrum import Spectrum, decompose, leading

_EPS = torch.finfo(torch.float64).eps
_PARALLEL = 1e-6  # below this sine of the angle, the arc and its chord differ by less than 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Truncated:
    """A delta of bounded rank; `total` and `lost` are squared Frobenius norms of the whole and of what was cut."""

    delta: LoraDelta
    total: float
    lost: float

    @property
    def kept_share(self) -> float:
        return 1.0 - self.lost / self.total if self.total > 0 else 1.0


@dataclass(frozen=True, slots=True)
class BlendRecipe:
    """How adapters are combined; every choice made.

    For slerp and svd-cross, weights are shares of one: the way along the arc, and the chance that a direction is
    inherited. TIES averages where others add, so that its weights count relative to 1 divided by the number of parents:
    there, too, equal shares of equal parents give the parent.
    """

    method: str  # a name in `operators`
    weights: tuple[float, ...]  # one per parent
    rank: int
    density: float | None  # share of entries that are kept; None for operators that do not thin out
    seed: int  # of what an operator draws, with each module's name
    step: float | None = None  # share of its norm by which a mutation changes a module; None for the others

    @property
    def share(self) -> float:
        assert self.density is not None
        return self.density

    @property
    def relative(self) -> float:
        assert self.step is not None
        return self.step


@dataclass(frozen=True, slots=True)
class Operator:
    """One way to combine adapters.

    `combine` makes the child of the deltas of one module. Pure: what it draws comes from the generator, on the CPU.
    """

    combine: Callable[[Sequence[LoraDelta], BlendRecipe, torch.Generator], Truncated]
    pair: bool = False  # takes two parents, whose weights are shares of one
    thins: bool = False  # keeps a share of the entries, the recipe's density
    adds_ranks: bool = False  # the child has the sum of the parents' ranks
    alone: bool = False  # takes one parent, and changes it by the recipe's step


def kept_energy(parts: Sequence[Truncated]) -> float:
    """The share that was kept of a whole adapter: modules count by their energy."""
    total = math.fsum(part.total for part in parts)
    return 1.0 - math.fsum(part.lost for part in parts) / total if total > 0 else 1.0


def concatenate(deltas: Sequence[LoraDelta], weights: Sequence[float]) -> LoraDelta:
    """The exact weighted sum: factors side by side, so that ranks add. Float64.

    Raises:
        UsageError: no delta, as many weights as deltas are not given, or a weight is no finite number.
        DataError: the shapes differ.
    """
    shape = shape_of(deltas)
    check_weights(deltas, weights)
    pairs = zip(deltas, weights, strict=True)
    parts = [delta.scaled(weight).fold_scale() for delta, weight in pairs if weight and delta.rank]
    if not parts:
        return zero(shape)
    return LoraDelta(torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts], dim=1))


def truncate(delta: LoraDelta, rank: int) -> Truncated:
    """The nearest matrix of at most this rank in the Frobenius norm (Eckart and Young, 1936).

    Singular values that are rounding errors of the factors' product count as 0: parents that cancel leave nothing.

    Raises:
        UsageError: the rank is below 1.
    """
    check_rank(rank)
    spectrum, values = leading(delta, rank)
    sizes = [float(torch.linalg.vector_norm(factor, dtype=torch.float64)) for factor in (delta.a, delta.b)]
    error = _EPS * max(delta.shape) * sizes[0] * sizes[1] * abs(delta.scale)
    energy = values.where(values > error, 0.0).square()
    return Truncated(spectrum.select(spectrum.s > error).delta(), float(energy.sum()), float(energy[rank:].sum()))


def weighted_sum(deltas: Sequence[LoraDelta], weights: Sequence[float], rank: int) -> Truncated:
    """The best approximation of rank `rank` to `sum(weight * delta)`. Errors: as `concatenate` and `truncate`."""
    return truncate(concatenate(deltas, weights), rank)


def slerp(first: LoraDelta, second: LoraDelta, fraction: float) -> LoraDelta:
    """The point at `fraction` of the arc from `first` to `second` (Shoemake, 1985), exact: ranks add.

    Where the arc is not defined (a parent is zero, or both lie on a line) it is the point of the straight line.

    Raises:
        UsageError: the fraction is outside 0 to 1.
        DataError: the shapes differ.
    """
    if not 0 <= fraction <= 1:
        raise UsageError(f"The fraction {fraction} is not between 0 and 1.")
    weights = (1 - fraction, fraction)
    sizes = geometry.norm(first) * geometry.norm(second)
    angle = math.acos(max(-1.0, min(1.0, geometry.inner(first, second) / sizes))) if sizes > 0 else 0.0
    if math.sin(angle) > _PARALLEL:
        weights = (math.sin(weights[0] * angle) / math.sin(angle), math.sin(weights[1] * angle) / math.sin(angle))
    return concatenate((first, second), weights)


def shape_of(deltas: Sequence[LoraDelta]) -> tuple[int, int]:
    """The common shape (outputs, inputs).

    Raises:
        UsageError: there is no delta.
        DataError: the shapes differ.
    """
    if not deltas:
        raise UsageError("There are no adapters to combine.")
    shapes = {delta.shape for delta in deltas}
    if len(shapes) > 1:
        raise DataError(
            f"The adapters change matrices of different shapes: {sorted(shapes)}.",
            hint="They were trained on different base models; combine adapters of the same base model.",
        )
    return deltas[0].shape


def check_weights(deltas: Sequence[LoraDelta], weights: Sequence[float]) -> None:
    """One finite weight per delta, or a `UsageError`."""
    if len(weights) != len(deltas) or not all(math.isfinite(weight) for weight in weights):
        raise UsageError(
            f"{len(deltas)} adapters need {len(deltas)} finite weights, got {list(weights)}.",
            hint="Pass one number per adapter, in the same order.",
        )


def check_rank(rank: int) -> None:
    """A rank of at least 1, or a `UsageError`."""
    if rank < 1:
        raise UsageError(f"An adapter cannot have rank {rank}.", hint="Use a rank of 1 or more.")


def _sum(deltas: Sequence[LoraDelta], recipe: BlendRecipe, _: torch.Generator) -> Truncated:
    return weighted_sum(deltas, recipe.weights, recipe.rank)


def _slerp(deltas: Sequence[LoraDelta], recipe: BlendRecipe, _: torch.Generator) -> Truncated:
    return truncate(slerp(deltas[0], deltas[1], recipe.weights[1]), recipe.rank)


def cross_directions(first: LoraDelta, second: LoraDelta, share: float, generator: torch.Generator) -> LoraDelta:
    """A child whose i-th strongest direction is the i-th strongest of one parent, drawn for each i.

    A direction is a singular value with both its vectors, so that nothing depends on how a parent is factored. The
    child has the larger of the parents' ranks; where one parent has no i-th direction, a draw for it leaves a gap.
    `share` is the chance that a direction comes from `second`. The generator is on the CPU, wherever the factors are.

    Raises:
        UsageError: the share is outside 0 to 1.
        DataError: the shapes differ.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"The share {share} is not between 0 and 1.")
    shape_of((first, second))
    mother, father = decompose(first), decompose(second)
    count = max(len(mother.s), len(father.s))
    from_father = (torch.rand(count, generator=generator, dtype=torch.float64) < share).to(mother.s.device)
    chosen = (
        mother.select((~from_father[: len(mother.s)]).nonzero()[:, 0]),
        father.select(from_father[: len(father.s)].nonzero()[:, 0]),
    )
    return Spectrum(
        torch.cat([spectrum.u for spectrum in chosen], dim=1),
        torch.cat([spectrum.s for spectrum in chosen]),
        torch.cat([spectrum.v for spectrum in chosen], dim=1),
    ).delta()


def _svd_cross(deltas: Sequence[LoraDelta], recipe: BlendRecipe, generator: torch.Generator) -> Truncated:
    return truncate(cross_directions(deltas[0], deltas[1], recipe.weights[1], generator), recipe.rank)


SUM, CONCAT, SLERP = Operator(_sum), Operator(_sum, adds_ranks=True), Operator(_slerp, pair=True)
SVD_CROSS = Operator(_svd_cross, pair=True)
