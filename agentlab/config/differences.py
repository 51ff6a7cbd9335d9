"""What changed between two configs of one kind: for resume and for comparing runs. Pure."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from agentlab.config.base import Role, flatten, roles


@dataclass(frozen=True, slots=True)
class Difference:
    """A dotted key whose values differ; None where a config does not have it."""

    key: str
    old: Any
    new: Any
    role: Role | None


def differences(old: BaseModel, new: BaseModel) -> list[Difference]:
    """Every key whose resolved values differ, in the order of the config."""
    before, after = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    marked = dict(roles(type(new)))
    return [
        Difference(key, before.get(key), after.get(key), _role(key, marked))
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]


def _role(key: str, marked: dict[str, Role]) -> Role | None:
    return next((role for name, role in marked.items() if key == name or key.startswith(f"{name}.")), None)
