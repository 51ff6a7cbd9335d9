"""Random search: the yardstick, and the filler when a better proposer runs dry."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentlab.search.space import SearchSpace
from agentlab.search.types import Proposal, Trial

if TYPE_CHECKING:
    import numpy as np


def arm(name: str, space: SearchSpace, seed: int) -> "RandomProposer":  # noqa: ARG001 - the arguments of every arm
    """The search arm `random`."""
    return RandomProposer(space)


class RandomProposer:
    """Independent draws that keep the rules of the space."""

    name = "random"

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def ask(self, history: Sequence[Trial], n: int, rng: "np.random.Generator") -> list[Proposal]:  # noqa: ARG002 - random search looks at nothing
        """`n` random points.

        Raises:
            ConfigError: the constraints leave hardly any points.
        """
        return [Proposal(self._space.sample(rng), self.name) for _ in range(n)]

    def tell(self, trial: Trial) -> None:
        """Random search does not learn."""
