"""Classical search arms by name. A row here, or an entry point of another package, adds one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, WithJsonSchema

from agentlab.plugins import Registry
from agentlab.search.space import SearchSpace
from agentlab.search.types import Proposal, Proposer, Trial

if TYPE_CHECKING:
    import numpy as np

Arm = Callable[[str, SearchSpace, int], Proposer]  # (name, space, seed); what it proposes is not screened yet

ARMS: Registry[Arm] = Registry(
    "search arm",
    "agentlab.arms",
    {
        "gp": "agentlab.search.optuna_proposer:arm",
        "tpe": "agentlab.search.optuna_proposer:arm",
        "auto": "agentlab.search.optuna_proposer:arm",
        "random": "agentlab.search.arms:random_arm",
        "ga": "agentlab.search.evolution:arm",
        "one-plus-lambda": "agentlab.search.evolution:arm",
        "cma-es": "agentlab.search.evolution:arm",
        "map-elites": "agentlab.search.evolution:arm",
    },
)
ArmName = Annotated[str, AfterValidator(ARMS.require), WithJsonSchema({"type": "string", "enum": [*ARMS.table]})]


def random_arm(name: str, space: SearchSpace, seed: int) -> "RandomProposer":  # noqa: ARG001 - as all arms are made
    """The arm `random`."""
    return RandomProposer(space)


@dataclass(frozen=True)
class RandomProposer:
    """Random search, the yardstick. Independent draws that keep the rules of the space."""

    space: SearchSpace
    name: ClassVar[str] = "random"

    def ask(self, history: Sequence[Trial], n: int, rng: "np.random.Generator") -> list[Proposal]:  # noqa: ARG002 - random search looks at nothing
        return [Proposal(self.space.sample(rng), self.name) for _ in range(n)]
