"""Mutations measured against each module's own norm.

A fixed noise on both factors changes a fresh adapter by many times its norm, because one factor starts near zero. Here
a step says by what share of its Frobenius norm a delta is to change, and every step reports by how much it did.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch  # noqa: TID253 - reached lazily, when adapters are mutated

from agentlab.errors import UsageError
from agentlab.lora import geometry
from agentlab.lora.blend import BlendRecipe, Operator, Truncated, check_rank, concatenate, truncate
from agentlab.lora.delta import LoraDelta
from agentlab.lora.spectrum import Spectrum, decompose

_LARGEST = 1.0  # a step as long as the delta itself is no mutation any more


@dataclass(frozen=True, slots=True, eq=False)
class Mutated:
    """A mutated delta and the size of the change as a share of the parent's norm; 0 for a parent that is zero."""

    delta: LoraDelta
    change: float


def mutate_values(delta: LoraDelta, relative: float, generator: torch.Generator) -> Mutated:
    """Multiply each singular value by exp(relative * N(0, 1)): the directions stay, their strengths drift.

    For steps of some per cent the change is `relative` in the root mean square.

    Raises:
        UsageError: `relative` is outside 0 to 1.
    """
    _check(relative)
    spectrum = decompose(delta)
    factors = torch.exp(relative * _normal((len(spectrum.s),), generator, spectrum.s))
    return _report(delta, Spectrum(spectrum.u, spectrum.s * factors, spectrum.v).delta())


def rotate(delta: LoraDelta, relative: float, generator: torch.Generator) -> Mutated:
    """Turn singular vectors on both sides into random directions outside their span: strengths and norm stay.

    Turning all of them by an angle t changes the delta by sqrt(2) sin(t) times its norm, exactly, so that t follows
    from `relative`. Where the matrix is too small to have that many directions outside, randomly chosen ones turn
    further, at most by a right angle.

    Raises:
        UsageError: `relative` is outside 0 to 1, or the rank is the smaller side: there is no outside.
    """
    _check(relative)
    spectrum = decompose(delta)
    outputs, inputs = delta.shape
    rank = len(spectrum.s)
    turning = min(rank, outputs - rank, inputs - rank)
    if spectrum.norm == 0:
        return Mutated(spectrum.delta(), 0.0)
    if turning < 1:
        raise UsageError(
            f"A delta of rank {rank} in a matrix of {outputs} by {inputs} cannot be rotated.",
            hint="Truncate it to a smaller rank first, or mutate its singular values.",
        )
    order = torch.randperm(rank, generator=generator).to(spectrum.s.device)
    moved, still = spectrum.select(order[:turning]), spectrum.select(order[turning:])
    reach = math.sqrt(2) * moved.norm
    sine = min(1.0, relative * spectrum.norm / reach) if reach > 0 else 0.0
    cosine = math.sqrt(1 - sine * sine)
    u = cosine * moved.u + sine * _outside(spectrum.u, turning, generator)
    v = cosine * moved.v + sine * _outside(spectrum.v, turning, generator)
    turned = Spectrum(torch.cat([u, still.u], dim=1), torch.cat([moved.s, still.s]), torch.cat([v, still.v], dim=1))
    return _report(delta, turned.delta())


def new_directions(delta: LoraDelta, relative: float, count: int, rank: int, generator: torch.Generator) -> Mutated:
    """Add `count` random directions whose norm is `relative` times the delta's, in place of the weakest beyond `rank`.

    The weakest give way first, because a plain truncation afterwards would cut the small new ones off again. What they
    held is part of the reported change.

    Raises:
        UsageError: `relative` is outside 0 to 1, or `count` is not between 1 and `rank`.
    """
    _check(relative)
    check_rank(rank)
    if not 1 <= count <= rank:
        raise UsageError(f"{count} new directions exceed the rank of {rank}.", hint="Use a count from 1 to the rank.")
    spectrum = decompose(delta)
    strongest = spectrum.select(slice(rank - count)).delta()
    outputs, inputs = delta.shape
    b = _normal((outputs, count), generator, spectrum.u)
    added = LoraDelta(_normal((count, inputs), generator, spectrum.v), b)
    size = relative * spectrum.norm / geometry.norm(added)
    return _report(delta, decompose(concatenate((strongest, added), (1.0, size))).delta())


def _report(parent: LoraDelta, child: LoraDelta) -> Mutated:
    size = geometry.norm(parent)
    return Mutated(child, geometry.distance(parent, child) / size if size > 0 else 0.0)


def _outside(basis: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Random orthonormal columns (n, count), orthogonal to the orthonormal columns of `basis` (n, k)."""
    columns = _normal((basis.shape[0], count), generator, basis)
    for _ in range(2):  # once leaves rounding errors of the projection
        columns = torch.linalg.qr(columns - basis @ (basis.T @ columns)).Q
    return columns


def _normal(shape: tuple[int, ...], generator: torch.Generator, like: torch.Tensor) -> torch.Tensor:
    """Standard normal numbers drawn on the CPU, so that a seed gives the same child on every device."""
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(like.device)


def _check(relative: float) -> None:
    if not 0 < relative <= _LARGEST:
        raise UsageError(
            f"A mutation of {relative} times the norm is outside the range 0 to {_LARGEST:g}.",
            hint="A common value is 0.05.",
        )


def _values(deltas: Sequence[LoraDelta], recipe: BlendRecipe, generator: torch.Generator) -> Truncated:
    return truncate(mutate_values(deltas[0], recipe.relative, generator).delta, recipe.rank)


def _rotate(deltas: Sequence[LoraDelta], recipe: BlendRecipe, generator: torch.Generator) -> Truncated:
    return truncate(rotate(truncate(deltas[0], recipe.rank).delta, recipe.relative, generator).delta, recipe.rank)


def _directions(deltas: Sequence[LoraDelta], recipe: BlendRecipe, generator: torch.Generator) -> Truncated:
    return truncate(new_directions(deltas[0], recipe.relative, 1, recipe.rank, generator).delta, recipe.rank)


VALUES, ROTATE, DIRECTIONS = (Operator(change, alone=True) for change in (_values, _rotate, _directions))
