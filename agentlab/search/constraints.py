"""Rules between parameters, as a small closed set of declarative forms: data from a config file is never evaluated."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from agentlab.config.base import StrictModel
from agentlab.search.parameters import same, show
from agentlab.search.types import Value

Pair = Annotated[tuple[str, str], Field(description="The names of two parameters.")]


def _numbers(pair: tuple[str, str], values: Mapping[str, Value]) -> tuple[float, float] | None:
    """Both values as numbers, or None when one of them is inactive or no number."""
    numbers = [values.get(name) for name in pair]
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in numbers):
        return None
    return numbers[0], numbers[1]  # type: ignore[return-value] # both are numbers by the test above


class _Rule(StrictModel):
    """What every form has: one field, with the parameters in it.

    `violation` says in words what is wrong; None when the rule holds or a parameter is inactive.
    """

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(getattr(self, next(iter(type(self).model_fields))))


class Divides(_Rule):
    """`divides: [a, b]`: a divides b without remainder."""

    divides: Pair

    def describe(self) -> str:
        return f"{self.divides[0]} divides {self.divides[1]}"

    def violation(self, values: Mapping[str, Value]) -> str | None:
        pair = _numbers(self.divides, values)
        if pair is None or (pair[0] != 0 and pair[1] % pair[0] == 0):
            return None
        return f"{self.divides[0]} = {show(pair[0])} does not divide {self.divides[1]} = {show(pair[1])}"


class AtMost(_Rule):
    """`at_most: [a, b]`: a is at most b."""

    at_most: Pair

    def describe(self) -> str:
        return f"{self.at_most[0]} is at most {self.at_most[1]}"

    def violation(self, values: Mapping[str, Value]) -> str | None:
        pair = _numbers(self.at_most, values)
        if pair is None or pair[0] <= pair[1]:
            return None
        return f"{self.at_most[0]} = {show(pair[0])} is above {self.at_most[1]} = {show(pair[1])}"


class Forbids(_Rule):
    """`forbids: {a: [...], b: [...]}`: not all of the parameters at once have one of the listed values."""

    forbids: dict[str, tuple[Value, ...]] = Field(
        min_length=1, description="The forbidden combination: parameter name -> values."
    )

    def describe(self) -> str:
        return "never " + " with ".join(f"{name} in {[*map(show, listed)]}" for name, listed in self.forbids.items())

    def violation(self, values: Mapping[str, Value]) -> str | None:
        for name, listed in self.forbids.items():
            if name not in values or not any(same(values[name], value) for value in listed):
                return None
        return " with ".join(f"{name} = {show(values[name])}" for name in self.forbids) + " is forbidden"


def _form(raw: Any) -> str | None:
    keys = raw if isinstance(raw, Mapping) else type(raw).model_fields if isinstance(raw, StrictModel) else ()
    return next((key for key in ("divides", "at_most", "forbids") if key in keys), None)


Constraint = Annotated[
    Annotated[Divides, Tag("divides")] | Annotated[AtMost, Tag("at_most")] | Annotated[Forbids, Tag("forbids")],
    Discriminator(
        _form,
        custom_error_type="constraint_form",
        custom_error_message="must be one of divides: [a, b], at_most: [a, b], forbids: {a: [..], b: [..]}",
    ),
]
