"""A search arm: always the middle."""

from collections.abc import Sequence
from typing import Any

from agentlab.search.space import SearchSpace
from agentlab.search.types import Proposal, Trial


class Middle:
    """Implements `Proposer`."""

    name = "middle"

    def __init__(self, name: str, space: SearchSpace, seed: int) -> None:
        self._space = space

    def ask(self, history: Sequence[Trial], n: int, rng: Any) -> list[Proposal]:
        return [Proposal({"x": 5}, self.name)] * n
