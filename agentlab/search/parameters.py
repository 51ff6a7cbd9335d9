"""One searched parameter: its values, how a foreign value is snapped to them, and its place on the unit interval."""

import math
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from agentlab.config.base import StrictModel
from agentlab.search.types import Value

MAX_CHOICES = 256
_MAX_DIGITS = 32  # a longer number in an answer is noise


def number_of(raw: object) -> float | None:
    """The finite number that `raw` is or spells, else None. A truth value is not a number."""
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return None
    if isinstance(raw, str) and len(raw) > _MAX_DIGITS:
        return None
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def same(a: object, b: object) -> bool:
    """Equality in which True is not 1."""
    return isinstance(a, bool) == isinstance(b, bool) and a == b


class _Spec(StrictModel):
    """What every parameter has."""

    when: dict[str, tuple[Value, ...]] = Field(
        default_factory=dict, description="Only active while every named parameter has one of the listed values."
    )

    @property
    def is_ordered(self) -> bool:
        """Whether position in the range means more or less of something."""
        return True


class Categorical(_Spec):
    """A choice. Numbers in rising or falling order are treated as an ordered scale, so a model can learn a trend."""

    type: Literal["categorical"]
    choices: tuple[Value, ...] = Field(min_length=1, max_length=MAX_CHOICES, description="The allowed values.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for i, choice in enumerate(self.choices):
            if any(same(choice, earlier) for earlier in self.choices[:i]):
                raise ValueError(f"the choice {choice!r} is listed twice")
        return self

    @property
    def is_ordered(self) -> bool:
        """Whether the choices are numbers that rise or fall."""
        numbers = [c for c in self.choices if isinstance(c, int | float) and not isinstance(c, bool)]
        rising = all(a < b for a, b in pairwise(numbers))
        falling = all(a > b for a, b in pairwise(numbers))
        return len(numbers) == len(self.choices) and (rising or falling)

    @property
    def count(self) -> int:
        return len(self.choices)

    def contains(self, value: object) -> bool:
        return any(same(value, choice) for choice in self.choices)

    def snap(self, raw: object) -> Value | None:
        """The choice that `raw` is, spells, or (on an ordered scale) comes nearest to; None when there is none."""
        for choice in self.choices:
            if same(raw, choice) or (isinstance(raw, str) and raw.strip().lower() == str(choice).lower()):
                return choice
        near = number_of(raw)
        if near is None or not self.is_ordered:
            return None
        return min(self.choices, key=lambda choice: abs(float(choice) - near))

    def index(self, value: Value) -> int:
        return next(i for i, choice in enumerate(self.choices) if same(value, choice))

    def encode(self, value: Value) -> float:
        """Middle of the choice's share of [0, 1]."""
        return (self.index(value) + 0.5) / self.count

    def decode(self, unit: float) -> Value:
        """The choice whose share of [0, 1] holds `unit`."""
        return self.choices[min(int(unit * self.count), self.count - 1)]

    def values(self) -> list[Value]:
        return list(self.choices)

    def describe(self) -> str:
        return "one of " + ", ".join(str(choice) for choice in self.choices)


class Integer(_Spec):
    """Whole numbers `low`, `low + step`, ... up to `high`. `log` spreads them evenly in the exponent."""

    type: Literal["int"]
    low: int = Field(ge=-(2**53), le=2**53, description="Smallest value.")
    high: int = Field(ge=-(2**53), le=2**53, description="Largest value.")
    step: int = Field(default=1, ge=1, description="Step between neighbouring values.")
    log: bool = Field(default=False, description="Search on a logarithmic scale.")

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.log and (self.low < 1 or self.step != 1):
            raise ValueError("a logarithmic scale requires low >= 1 and step = 1")
        return self

    @property
    def count(self) -> int:
        return (self.high - self.low) // self.step + 1

    def contains(self, value: object) -> bool:
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return is_integer and self.low <= value <= self.high and (value - self.low) % self.step == 0  # type: ignore[operator] # `is_integer` narrows

    def snap(self, raw: object) -> int | None:
        """The grid value nearest to the number that `raw` is or spells; None when it is no number."""
        number = number_of(raw)
        if number is None:
            return None
        steps = round((min(max(number, self.low), self.high) - self.low) / self.step)
        return self.low + min(steps, self.count - 1) * self.step

    def index(self, value: Value) -> int:
        return (int(value) - self.low) // self.step

    def encode(self, value: Value) -> float:
        """Middle of the value's share of [0, 1]."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return (math.log(float(value)) - low) / (high - low)
        return (self.index(value) + 0.5) / self.count

    def decode(self, unit: float) -> int:
        """The value whose share of [0, 1] holds `unit`."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return min(max(round(math.exp(low + unit * (high - low))), self.low), self.high)
        return self.low + min(int(unit * self.count), self.count - 1) * self.step

    def values(self) -> list[Value]:
        return list(range(self.low, self.high + 1, self.step))

    def describe(self) -> str:
        steps = f" in steps of {self.step}" if self.step > 1 else ""
        return f"whole number {self.low} to {self.high}{steps}{', log scale' if self.log else ''}"


class Real(_Spec):
    """Numbers from `low` to `high`. `log` searches the exponent."""

    type: Literal["float"]
    low: float = Field(allow_inf_nan=False, description="Smallest value.")
    high: float = Field(allow_inf_nan=False, description="Largest value.")
    log: bool = Field(default=False, description="Search on a logarithmic scale.")

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic scale requires low > 0")
        return self

    @property
    def count(self) -> None:
        """None: a continuum."""
        return None

    def contains(self, value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def snap(self, raw: object) -> float | None:
        number = number_of(raw)
        return None if number is None else min(max(number, self.low), self.high)

    def encode(self, value: Value) -> float:
        """Place on [0, 1]."""
        if self.log:
            return math.log(float(value) / self.low) / math.log(self.high / self.low)
        return (float(value) - self.low) / (self.high - self.low)

    def decode(self, unit: float) -> float:
        """Inverse of `encode`, rounded to four digits: nobody reads a learning rate to more."""
        value = self.low * (self.high / self.low) ** unit if self.log else self.low + unit * (self.high - self.low)
        return min(max(float(f"{value:.4g}"), self.low), self.high)

    def describe(self) -> str:
        return f"number {self.low:g} to {self.high:g}{', log scale' if self.log else ''}"


Parameter = Annotated[Categorical | Integer | Real, Field(discriminator="type")]


def show(value: Any) -> str:
    """A value as prompts and reasons write it: floats with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
