"""Crossover by singular directions: a child inherits whole directions of its parents instead of averages."""

from collections.abc import Sequence

import torch  # noqa: TID253 - reached lazily, when adapters are crossed

from agentlab.errors import UsageError
from agentlab.lora.blend import Operator, Recipe, Truncated, shape_of, truncate
from agentlab.lora.delta import Delta
from agentlab.lora.spectrum import Spectrum, decompose


def cross_directions(first: Delta, second: Delta, share: float, generator: torch.Generator) -> Delta:
    """A child whose i-th strongest direction is the i-th strongest of one parent, drawn for each i.

    A direction is a singular value with both its vectors, so that nothing depends on how a parent is factored. The
    child has the larger of the parents' ranks; where one parent has no i-th direction, a draw for it leaves a gap.

    Args:
        share: chance in 0..1 that a direction comes from `second`.
        generator: on the CPU, whatever device the factors are on.

    Raises:
        UsageError: the share is outside 0 to 1.
        DataError: the shapes differ.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"{share} is not a share between 0 and 1.")
    shape_of((first, second))
    mother, father = decompose(first), decompose(second)
    count = max(len(mother.s), len(father.s))
    drawn = (torch.rand(count, generator=generator, dtype=torch.float64) < share).to(mother.s.device)
    chosen = (
        mother.select((~drawn[: len(mother.s)]).nonzero()[:, 0]),
        father.select(drawn[: len(father.s)].nonzero()[:, 0]),
    )
    return Spectrum(
        torch.cat([each.u for each in chosen], dim=1),
        torch.cat([each.s for each in chosen]),
        torch.cat([each.v for each in chosen], dim=1),
    ).delta()


def _svd_cross(deltas: Sequence[Delta], recipe: Recipe, generator: torch.Generator) -> Truncated:
    return truncate(cross_directions(deltas[0], deltas[1], recipe.weights[1], generator), recipe.rank)


SVD_CROSS = Operator(_svd_cross, pair=True)
