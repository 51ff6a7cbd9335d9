"""The nearest acceptable point: what becomes of a good suggestion that breaks a rule or was tried before."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Value

if TYPE_CHECKING:
    import numpy as np

_TRIES = 200


def nearest(
    space: SearchSpace, point: Params, accept: Callable[[Params], bool], rng: "np.random.Generator"
) -> dict[str, Value] | None:
    """The nearest of 200 random variations of `point` that is accepted; None if none is.

    A variation redraws one to three coordinates, every second one close to where it was.
    """
    centre = space.encode(point)
    best: tuple[float, dict[str, Value]] | None = None
    for attempt in range(_TRIES):
        unit = list(centre)
        for axis in rng.choice(len(unit), size=min(int(rng.integers(1, 4)), len(unit)), replace=False):
            close = min(max(centre[axis] + 0.15 * rng.standard_normal(), 0.0), 1.0)
            unit[axis] = close if attempt % 2 else rng.random()
        candidate = space.decode(unit)
        distance = space.distance(point, candidate)
        if (best is None or distance < best[0]) and accept(candidate):
            best = (distance, candidate)
    return best[1] if best else None
