"""What changed between two configs of one kind: for resume and for comparing runs. Pure."""

from collections.abc import Sequence
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


def larger_budget(changed: Sequence[Difference]) -> bool:
    """Whether one of the changes leaves more to do: a higher limit, or none where there was one."""
    return any(d.role == "budget" and d.old is not None and (d.new is None or d.new > d.old) for d in changed)


def _role(key: str, marked: dict[str, Role]) -> Role | None:
    return next((role for name, role in marked.items() if key == name or key.startswith(f"{name}.")), None)
