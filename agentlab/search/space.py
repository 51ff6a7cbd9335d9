"""The search space: parameters, their conditions and the rules between them. Everything here is a pure function."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import fmean
from typing import TYPE_CHECKING, Self

from pydantic import ConfigDict, Field, RootModel, model_validator

from agentlab.errors import ConfigError
from agentlab.search.constraints import Constraint
from agentlab.search.parameters import Parameter, same, show
from agentlab.search.types import Params, Value

if TYPE_CHECKING:
    import numpy as np

_EDGE = 0.01  # a centre lies at least so far inside, as a share of each range: there has to be room on both sides
_DRAWS = 2_000  # rejected random points in a row after which the rules are taken to leave (almost) nothing


class SpaceConfig(RootModel[dict[str, Parameter]]):
    """The `space:` key of a config: dotted config key -> its range."""

    model_config = ConfigDict(frozen=True)
    root: dict[str, Parameter] = Field(max_length=64)

    @model_validator(mode="after")
    def _conditions(self) -> Self:
        for name, spec in self.root.items():
            for parent, values in spec.when.items():
                if parent not in self.root:
                    raise ValueError(f"{name} depends on {parent}, which is not in the space")
                unknown = [value for value in values if not self.root[parent].contains(value)]
                if unknown or not values:
                    raise ValueError(
                        f"{name} depends on {parent} in {list(values)}, but needs valid values of {parent}"
                    )
        _depths(self.root)
        return self


def _depths(parameters: Mapping[str, Parameter]) -> dict[str, int]:
    """Length of the longest chain of conditions above each parameter. Raises ValueError if they run in a circle."""
    depths: dict[str, int] = {}
    while len(depths) < len(parameters):
        ready = [n for n, spec in parameters.items() if n not in depths and spec.when.keys() <= depths.keys()]
        if not ready:
            raise ValueError(f"the conditions of {', '.join(n for n in parameters if n not in depths)} form a cycle")
        for name in ready:
            parent_depths = [depths[parent] for parent in parameters[name].when]
            depths[name] = 1 + max(parent_depths, default=-1)
    return depths


def _is_one_of(value: object, values: Sequence[Value]) -> bool:
    return any(same(value, known_value) for known_value in values)


@dataclass(frozen=True)
class SearchSpace:
    """Parameters with their rules. `constants` are config values outside the space that the rules may speak of.

    `centre` is a point of numbers around which random ones are drawn; without it they are uniform. A point is a mapping
    that holds a value for every active parameter and nothing else.
    """

    parameters: Mapping[str, Parameter]
    constraints: Sequence[Constraint] = ()
    constants: Mapping[str, Value] = field(default_factory=dict)
    centre: Params | None = None

    @classmethod
    def of(
        cls, config: SpaceConfig, constraints: Sequence[Constraint] = (), constants: Mapping[str, Value] | None = None
    ) -> Self:
        """Join the config's parts, parents before the parameters that depend on them.

        Raises:
            ConfigError: a constraint names something that is neither searched nor set.
        """
        depths = _depths(config.root)
        ordered = {name: config.root[name] for name in sorted(config.root, key=lambda name: depths[name])}
        known_constants = {name: value for name, value in (constants or {}).items() if name not in ordered}
        for constraint in constraints:
            for name in constraint.names:
                if name not in ordered and name not in known_constants:
                    raise ConfigError(
                        f"A constraint names {name}, which is neither in `space` nor a key of the config.",
                        hint=f"Parameters in `space`: {', '.join(ordered)}.",
                    )
        return cls(ordered, tuple(constraints), known_constants)

    @property
    def depth(self) -> int:
        """Longest chain of conditions: 0 for a flat space, 2 when a condition hangs on a conditional parameter."""
        return max(_depths(self.parameters).values())

    def is_active(self, name: str, params: Mapping[str, object]) -> bool:
        """Whether the conditions of `name` hold; its parents must be in `params` if they are active."""
        when = self.parameters[name].when
        return all(parent in params and _is_one_of(params[parent], values) for parent, values in when.items())

    def reduce(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """The active part of `params`, in the order of the space."""
        active: dict[str, Value] = {}
        for name in self.parameters:
            if name in params and self.is_active(name, active):
                active[name] = params[name]
        return active

    def problems(self, params: Mapping[str, object]) -> list[str]:
        """Everything that keeps `params` from being a point of the space, in words; empty for a valid point."""
        complaints = [f"{name} is not a parameter of the space" for name in params if name not in self.parameters]
        legal: dict[str, Value] = {}
        for name, spec in self.parameters.items():
            if not self.is_active(name, legal):
                if name in params:
                    complaints.append(f"{name} is set, but its condition does not hold")
            elif name not in params:
                complaints.append(f"{name} is missing")
            elif not spec.contains(value := params[name]):
                complaints.append(f"{name} = {show(value)} is invalid; expected {spec.describe()}")
            else:
                legal[name] = value  # type: ignore[assignment] # `contains` has just said so
        return complaints or self.broken_rules(legal)

    def broken_rules(self, params: Params) -> list[str]:
        values = {**self.constants, **params}
        return [text for rule in self.constraints if (text := rule.violation(values)) is not None]

    def snap(self, raw: Mapping[str, object], base: Params) -> tuple[dict[str, Value], list[str]]:
        """`base` changed by an untrusted answer: values are clamped to their range and snapped to the grid.

        A newly active parameter that the answer leaves out gets its middle value. Returns the point and what
        could not be used (unknown names, values that are no values), in words. Rules are not looked at.
        """
        unusable = [f"{name!r:.60} is not a parameter" for name in raw if name not in self.parameters]
        point: dict[str, Value] = {}
        for name, spec in self.parameters.items():
            if not self.is_active(name, point):
                continue
            value = spec.snap(raw[name]) if name in raw else None
            if name in raw and value is None:
                unusable.append(f"{str(raw[name])!r:.40} is not a valid value of {name}")
            if value is None:
                value = spec.snap(base.get(name))
            point[name] = spec.decode(0.5) if value is None else value
        return point, unusable

    def default(self, values: Mapping[str, Value] | None = None) -> dict[str, Value]:
        """The point nearest to the config's own values, middle values elsewhere. Rules are not looked at."""
        known_values = {name: value for name, value in (values or {}).items() if name in self.parameters}
        return self.snap(known_values, {})[0]

    def key(self, params: Params) -> str:
        """Equal for points that are the same experiment: active parameters only, floats to four digits."""
        active = self.reduce(params)
        rounded = {n: f"{v:.4g}" if self.parameters[n].type == "float" else v for n, v in active.items()}
        return json.dumps(rounded, sort_keys=True)

    def encode(self, params: Params) -> list[float]:
        """Coordinates in the unit cube, one per parameter; an inactive one sits in the middle."""
        return [spec.encode(params[name]) if name in params else 0.5 for name, spec in self.parameters.items()]

    def decode(self, unit: Sequence[float]) -> dict[str, Value]:
        """The point at the given coordinates. Rules are not looked at."""
        specs = zip(self.parameters.items(), unit, strict=True)
        return self.reduce({name: spec.decode(u) for (name, spec), u in specs})

    def distance(self, a: Params, b: Params) -> float:
        """Sum over parameters of the difference in [0, 1]; 1 for another unordered choice or another activity."""
        total = 0.0
        for name, spec in self.parameters.items():
            if (name in a) != (name in b):
                total += 1.0
            elif name in a and not same(a[name], b[name]):
                total += abs(spec.encode(a[name]) - spec.encode(b[name])) if spec.is_ordered else 1.0
        return total

    @property
    def middle(self) -> list[float]:
        """Where random points have their mean, in the unit cube."""
        if self.centre is None:
            return [0.5] * len(self.parameters)
        return [min(max(coordinate, _EDGE), 1 - _EDGE) for coordinate in self.encode(self.centre)]

    @property
    def spread(self) -> float | None:
        """Standard deviation of a coordinate of random points around a centre, as a mean over axes."""
        if self.centre is None:
            return None
        return sqrt(fmean(middle * (1 - middle) for middle in self.middle)) / 3

    def around_centre(self, unit: Sequence[float], share: float) -> list[float]:
        """A uniform point of the unit cube, moved so that such points have their mean at the centre.

        A coordinate u becomes the quantile u of a distribution that is flat on both sides of the middle m, with 1 - m
        of its mass below: its mean is m, and it reaches both ends. `share` is how much of the way from the centre to
        there is gone; uniform in [0, 1], it gives near points as well as far ones however many axes there are.
        """
        if self.centre is None:
            return list(unit)
        moved = []
        for u, m in zip(unit, self.middle, strict=True):
            far = m * u / (1 - m) if u < 1 - m else 1 - (1 - m) * (1 - u) / m
            moved.append(m + share * (far - m))
        return moved

    def sample(self, rng: "np.random.Generator") -> dict[str, Value]:
        """A random point that keeps all rules: uniform, or around the centre.

        Raises:
            ConfigError: the constraints leave no, or hardly any, points.
        """
        for _ in range(_DRAWS):
            unit, share = rng.random(len(self.parameters)).tolist(), 1.0 if self.centre is None else rng.random()
            point = self.decode(self.around_centre(unit, share))
            if not self.broken_rules(point):
                return point
        problem = f"None of {_DRAWS} random points in the space satisfies all constraints."
        raise ConfigError(problem, hint="Widen `space` or remove a constraint.")

    def points(self, limit: int) -> list[dict[str, Value]] | None:
        """Every valid point, or None when the space is continuous or the walk would visit more than `limit`."""
        valid_points: list[dict[str, Value]] = []
        for visited, point in enumerate(self._walk(list(self.parameters), {})):
            if point is None or visited >= limit:
                return None
            if not self.broken_rules(point):
                valid_points.append(point)
        return valid_points

    def _walk(self, names: list[str], point: dict[str, Value]) -> Iterator[dict[str, Value] | None]:
        """Depth-first over all value combinations; None where a continuous parameter is met."""
        if not names:
            yield point
            return
        name, later_names = names[0], names[1:]
        spec = self.parameters[name]
        if not self.is_active(name, point):
            yield from self._walk(later_names, point)
        elif spec.type == "float":
            yield None
        else:
            for value in spec.values():
                yield from self._walk(later_names, {**point, name: value})
