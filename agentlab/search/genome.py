"""How children are made of their parents. Who the parents are is the affair of `evolution`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Trial

_OUTSIDE = 0.5  # alpha of BLX: so far beyond its parents a child may lie, as a share of their distance
_TRIES = 100  # children that break a rule, or equal a parent, before a random point takes their place


class Genome(Protocol):
    """The operators of one kind of candidate. All randomness comes from the generator.

    `dimension`: how many numbers a step changes; the more they are, the slower step sizes adapt.
    """

    @property
    def dimension(self) -> int: ...

    def random(self, rng: np.random.Generator) -> Params: ...

    def cross(self, first: Trial, second: Trial, rng: np.random.Generator) -> Params: ...

    def mutate(self, parent: Trial, rng: np.random.Generator, step: float) -> Params:
        """A child of one. `step` is how far it goes, in (0, 1]: a standard deviation, as a share of what there is."""


@dataclass(frozen=True)
class SpaceGenome:
    """Points of a search space, bred in its unit cube: children are points of the space and keep its rules.

    Numbers and ordered choices are coordinates; unordered choices are taken over or redrawn. What a parent lacks,
    since a condition does not hold there, comes from the other parent or is drawn at random.
    """

    space: SearchSpace

    @property
    def dimension(self) -> int:
        return len(self.space.parameters)

    def random(self, rng: np.random.Generator) -> Params:
        return self.space.sample(rng)

    def cross(self, first: Trial, second: Trial, rng: np.random.Generator) -> Params:
        """BLX-0.5 (Eshelman, Schaffer: Real-coded genetic algorithms and interval-schemata, FOGA 2, 1993, section 4).

        Choices come from either parent, as in uniform crossover (Syswerda, ICGA 1989).
        """
        a, b = (self.space.snap(parent.proposal.params, {})[0] for parent in (first, second))

        def child() -> np.ndarray:
            unit_a, unit_b = self._unit({**b, **a}, rng), self._unit({**a, **b}, rng)
            reach = _OUTSIDE * np.abs(unit_a - unit_b)
            blend = rng.uniform(np.minimum(unit_a, unit_b) - reach, np.maximum(unit_a, unit_b) + reach)
            return np.where(self._ordered_mask, blend, np.where(rng.random(unit_a.size) < 0.5, unit_a, unit_b))

        return self._first_valid_child(child, (a, b), rng)

    def mutate(self, parent: Trial, rng: np.random.Generator, step: float) -> Params:
        """A normal step in every coordinate, of half a place at least on a grid, so that no integer is stuck.

        A choice is redrawn with probability `step`, within the bounds of mixed-integer evolution strategies (Li et al.,
        Evolutionary Computation 21(1), 2013, section 3.3).
        """
        a, _ = self.space.snap(parent.proposal.params, {})
        scale = np.maximum(step, self._half_a_place)
        rate = min(max(step, 1 / (3 * self.dimension)), 0.5)

        def child() -> np.ndarray:
            unit = self._unit(a, rng)
            resampled = np.where(rng.random(unit.size) < rate, rng.random(unit.size), unit)
            return np.where(self._ordered_mask, unit + scale * rng.standard_normal(unit.size), resampled)

        return self._first_valid_child(child, (a,), rng)

    @cached_property
    def _ordered_mask(self) -> np.ndarray:
        return np.array([spec.is_ordered for spec in self.space.parameters.values()])

    @cached_property
    def _half_a_place(self) -> np.ndarray:
        return np.array([0.5 / spec.count if spec.count else 0.0 for spec in self.space.parameters.values()])

    def _unit(self, point: Params, rng: np.random.Generator) -> np.ndarray:
        """Coordinates, random where the point has no value."""
        fill, has_value = rng.random(self.dimension), [name in point for name in self.space.parameters]
        return np.where(has_value, self.space.encode(point), fill)

    def _first_valid_child(
        self, child: Callable[[], np.ndarray], parents: Sequence[Params], rng: np.random.Generator
    ) -> Params:
        """The first child that is new and keeps the rules; what steps over the edge of the cube is mirrored there."""
        for _ in range(_TRIES):
            turn = np.abs(child()) % 2
            point = self.space.decode(np.minimum(turn, 2 - turn).tolist())
            if point not in parents and not self.space.broken_rules(point):
                return point
        return self.random(rng)
