"""The states between loads: which units of work are done, which models are resident, and what may be loaded next.

Units, models and sets of them are numbers and bit masks, so that a search over thousands of states takes milliseconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class State(NamedTuple):
    """Masks of the units that are done and of the resident models that still have work, and the units that are ready.

    `ready` (in rising order) follows from `done`. It is carried along so that a move looks at those units alone,
    however many there are.
    """

    done: int
    resident: int
    ready: tuple[int, ...]


class Move(NamedTuple):
    """Evict a mask of models, then load one."""

    evict: int
    load: int


class Way(NamedTuple):
    """What loading costs, which of the models that are resident beforehand are kept (a mask), then move after move.

    A way is its last move and the way before it: ways that begin alike share their beginning.
    """

    cost: int
    kept: int
    move: Move | None = None
    before: "Way | None" = None

    @property
    def moves(self) -> tuple[Move, ...]:
        """The moves, the first one first."""
        found: list[Move] = []
        way = self
        while way.move is not None and way.before is not None:
            found.append(way.move)
            way = way.before
        return tuple(reversed(found))

    def further(self, move: Move, cost: int) -> "Way":
        """The way with one move more, which costs so much."""
        return Way(self.cost + cost, self.kept, move, self)


@dataclass(frozen=True)
class Problem:
    """Units of work for models. A unit has a higher number than all `needs` (a mask: everything before it).

    `then` are the units that come right after each: those without another between. `costs` are of loading, in a whole
    number, so that sums are exact: see `units.of`.
    """

    models: tuple[str, ...]
    sizes: tuple[int, ...]
    costs: tuple[int, ...]
    budget: int
    owner: tuple[int, ...]
    needs: tuple[int, ...]
    then: tuple[tuple[int, ...], ...]
    units_of: tuple[int, ...]
    resident: int

    @cached_property
    def end(self) -> State:
        """The state in which all is done, and no model has work left."""
        return State((1 << len(self.owner)) - 1, 0, ())

    @cached_property
    def _first(self) -> tuple[int, ...]:
        return tuple(unit for unit, needs in enumerate(self.needs) if not needs)

    def starts(self) -> Iterator[tuple[int, State]]:
        """What may be kept (a mask) of the models that are resident beforehand, and the state that it leads to."""
        for evict in self._minimal(self.resident, None):
            yield self.resident ^ evict, self.start(self.resident ^ evict)

    def start(self, resident: int) -> State:
        """The state that keeping these models of the resident ones leads to."""
        return self._settled(State(0, resident, self._first))

    def _settled(self, state: State) -> State:
        """Run whatever needs no load, for waiting gains nothing; then forget models without work."""
        done, resident, ready = state
        while at_hand := [unit for unit in ready if resident >> self.owner[unit] & 1]:
            done |= sum(1 << unit for unit in at_hand)
            next_up = {then for unit in at_hand for then in self.then[unit] if not self.needs[then] & ~done}
            ready = tuple(sorted(next_up.union(ready).difference(at_hand)))
        for model in bits(resident):
            if not self.units_of[model] & ~done:
                resident ^= 1 << model
        return State(done, resident, ready)

    def wanted(self, state: State) -> list[int]:
        """Models that have a unit ready, but are not resident: the one of the first unit first."""
        return list(dict.fromkeys(self.owner[unit] for unit in state.ready))

    def evictions(self, state: State, model: int) -> Iterator[int]:
        """Each set of models that makes room for one and has none to spare."""
        return self._minimal(state.resident, model)

    def after(self, state: State, move: Move) -> State:
        """The state that a move leads to."""
        return self._settled(State(state.done, state.resident & ~move.evict | 1 << move.load, state.ready))

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
