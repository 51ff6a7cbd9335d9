"""The states between loads: which units of work are done, which models are resident, and what may be loaded next.

Units, models and sets of them are numbers and bit masks, so that a search over thousands of states takes milliseconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import NamedTuple


class State(NamedTuple):
    """Masks: the units that are done, and the resident models that still have work."""

    done: int
    resident: int


class Move(NamedTuple):
    """Evict a mask of models, then load one."""

    evict: int
    load: int


class Way(NamedTuple):
    """What loading costs, which of the models that are resident beforehand are kept (a mask), then moves to the end."""

    cost: int
    kept: int
    moves: tuple[Move, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Units of work for models. A unit has a higher number than all `needs` (a mask: everything before it).

    `costs` are of loading, in a whole number, so that sums are exact: see `units.of`.
    """

    models: tuple[str, ...]
    sizes: tuple[int, ...]
    costs: tuple[int, ...]
    budget: int
    owner: tuple[int, ...]
    needs: tuple[int, ...]
    units_of: tuple[int, ...]
    resident: int

    @property
    def end(self) -> State:
        """The state in which all is done, and no model has work left."""
        return State((1 << len(self.owner)) - 1, 0)

    def starts(self) -> Iterator[tuple[int, State]]:
        """What may be kept (a mask) of the models that are resident beforehand, and the state that it leads to."""
        for evict in self._minimal(self.resident, None):
            yield self.resident ^ evict, self.settle(0, self.resident ^ evict)

    def settle(self, done: int, resident: int) -> State:
        """Run whatever needs no load, for waiting gains nothing; then forget models without work."""
        at_hand = reduce(or_, (self.units_of[model] for model in bits(resident)), 0) & ~done
        for unit in bits(at_hand):  # one pass will do: what a unit needs has lower numbers
            if not self.needs[unit] & ~done:
                done |= 1 << unit
        for model in bits(resident):
            if not self.units_of[model] & ~done:
                resident ^= 1 << model
        return State(done, resident)

    def wanted(self, state: State) -> list[int]:
        """Models that have a unit ready, but are not resident: the one of the first unit first."""
        found: dict[int, None] = {}
        for unit in bits(self.end.done & ~state.done):
            owner = self.owner[unit]
            if owner not in found and not self.needs[unit] & ~state.done:
                found[owner] = None
        return list(found)

    def evictions(self, state: State, model: int) -> Iterator[int]:
        """Each set of models that makes room for one and has none to spare."""
        return self._minimal(state.resident, model)

    def after(self, state: State, move: Move) -> State:
        """The state that a move leads to."""
        return self.settle(state.done, state.resident & ~move.evict | 1 << move.load)

    def missing_cost(self, state: State) -> int:
        """Of loading once each model that has work and is not resident: no way to the end costs less."""
        left = self.end.done & ~state.done
        return sum(
            cost
            for model, cost in enumerate(self.costs)
            if self.units_of[model] & left and not state.resident >> model & 1
        )

    def short(self, resident: int, model: int | None) -> int:
        """Bytes that resident models and one more are above the budget; negative when there is room."""
        extra = 0 if model is None else self.sizes[model]
        return self._bytes(resident) + extra - self.budget

    def _bytes(self, models: int) -> int:
        return sum(self.sizes[model] for model in bits(models))

    def _minimal(self, resident: int, model: int | None) -> Iterator[int]:
        largest_first = sorted(bits(resident), key=lambda each: (self.sizes[each], each), reverse=True)
        return self._covers(largest_first, self.short(resident, model), self._bytes(resident), 0)

    def _covers(self, models: list[int], short: int, offered: int, chosen: int) -> Iterator[int]:
        # Largest first, and no further once there is room: without the last, which is the smallest, there was none.
        if short <= 0:
            yield chosen
        elif offered >= short:
            first, rest = models[0], models[1:]
            size = self.sizes[first]
            yield from self._covers(rest, short - size, offered - size, chosen | 1 << first)
            yield from self._covers(rest, short, offered - size, chosen)


def bits(mask: int) -> Iterator[int]:
    """The numbers in a mask, in rising order."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
