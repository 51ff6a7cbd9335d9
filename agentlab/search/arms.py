"""Classical search arms by name. A row here, or an entry point of another package, adds one."""

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from agentlab.errors import UnknownNameError
from agentlab.plugins import Registry
from agentlab.search.space import SearchSpace
from agentlab.search.types import Proposer

_TABLE = {
    "gp": "agentlab.search.optuna_proposer:arm",
    "tpe": "agentlab.search.optuna_proposer:arm",
    "auto": "agentlab.search.optuna_proposer:arm",
    "random": "agentlab.search.random_proposer:arm",
}

Arm = Callable[[str, SearchSpace, int], Proposer]  # (name, space, seed); what it proposes is not screened yet

ARMS: Registry[Arm] = Registry("search arm", "agentlab.arms", _TABLE)


def _known(name: str) -> str:
    try:
        ARMS.where(name)
    except UnknownNameError as error:
        *first, last = map(repr, ARMS.names)
        expected = f"{', '.join(first)} or {last}"
        raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected}) from error
    return name


ArmName = Annotated[str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": [*_TABLE]})]
