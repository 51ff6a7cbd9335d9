"""The states between loads: which units of work are done, which models are resident, and what may be loaded next.

Units, models and sets of them are numbers and bit masks, so that a search over thousands of states takes milliseconds.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, reduce
from graphlib import CycleError, TopologicalSorter
from heapq import heapify, heappop, heappush
from itertools import chain
from math import inf
from operator import or_
from typing import NamedTuple

from agentlab.pipeline.schedule.types import Job, NoRoomError, Room

_NANOSECOND = 1 << 24  # one load costs its nanoseconds times this, plus one: fewer loads break ties


class State(NamedTuple):
    """A state between loads. `ready` follows from `done`: it is carried along so that a move looks at those alone."""

    done: int  # a mask of units
    resident: int  # a mask of the resident models that still have work
    ready: tuple[int, ...]  # units, in rising order


class Move(NamedTuple):
    """Evict a mask of models, then load one."""

    evict: int
    load: int


class Way(NamedTuple):
    """A way is its last move and the way before it: ways that begin alike share their beginning."""

    cost: int  # of loading
    kept: int  # a mask of those models that are resident beforehand
    move: Move | None = None
    before: "Way | None" = None

    @property
    def moves(self) -> tuple[Move, ...]:
        moves: list[Move] = []
        way = self
        while way.move is not None and way.before is not None:
            moves.append(way.move)
            way = way.before
        return tuple(reversed(moves))

    def further(self, move: Move, cost: int) -> "Way":
        return Way(self.cost + cost, self.kept, move, self)


@dataclass(frozen=True)
class ScheduleProblem:
    """Units of work for models. A unit has a higher number than all that it needs."""

    models: tuple[str, ...]
    sizes: tuple[int, ...]
    costs: tuple[int, ...]  # of loading, in whole numbers, so that sums are exact; see `problem_of`
    budget: int
    owner: tuple[int, ...]
    needs: tuple[int, ...]  # of each unit, a mask of everything before it
    then: tuple[tuple[int, ...], ...]  # of each unit, those right after it, without another between
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
        return self._settle_state(State(0, resident, self._first))

    def _settle_state(self, state: State) -> State:
        """Run whatever needs no load, for waiting gains nothing; then forget models without work."""
        done, resident, ready = state
        while at_hand := [unit for unit in ready if resident >> self.owner[unit] & 1]:
            done |= sum(1 << unit for unit in at_hand)
            followers = chain.from_iterable(self.then[unit] for unit in at_hand)
            next_up = {unit for unit in followers if not self.needs[unit] & ~done}
            ready = tuple(sorted(next_up.union(ready).difference(at_hand)))
        for model in bits(resident):
            if not self.units_of[model] & ~done:
                resident ^= 1 << model
        return State(done, resident, ready)

    def wanted_models(self, state: State) -> list[int]:
        """Models that have a unit ready, but are not resident: the one of the first unit first."""
        return list(dict.fromkeys(self.owner[unit] for unit in state.ready))

    def evictions(self, state: State, model: int) -> Iterator[int]:
        """Each set of models that makes room for one and has none to spare."""
        return self._minimal(state.resident, model)

    def after(self, state: State, move: Move) -> State:
        return self._settle_state(State(state.done, state.resident & ~move.evict | 1 << move.load, state.ready))

    def missing_cost(self, state: State) -> int:
        """Of loading once each model that has work and is not resident: no way to the end costs less."""
        unfinished = self.end.done & ~state.done
        return sum(
            cost
            for model, cost in enumerate(self.costs)
            if self.units_of[model] & unfinished and not state.resident >> model & 1
        )

    def short(self, resident: int, model: int | None) -> int:
        """Bytes that resident models and one more are above the budget; negative when there is room."""
        extra = 0 if model is None else self.sizes[model]
        return self._bytes(resident) + extra - self.budget

    def _bytes(self, models: int) -> int:
        return sum(self.sizes[model] for model in bits(models))

    def _minimal(self, resident: int, model: int | None) -> Iterator[int]:
        largest_first = sorted(bits(resident), key=lambda index: (self.sizes[index], index), reverse=True)
        return self._covers(largest_first, self.short(resident, model), self._bytes(resident), 0)

    def _covers(self, models: list[int], short: int, offered: int, chosen: int) -> Iterator[int]:
        # Largest first, and no further once there is room: without the last, which is the smallest, there was none.
        if short <= 0:
            yield chosen
        elif offered >= short:
            first, smaller_models = models[0], models[1:]
            size = self.sizes[first]
            yield from self._covers(smaller_models, short - size, offered - size, chosen | 1 << first)
            yield from self._covers(smaller_models, short, offered - size, chosen)


def bits(mask: int) -> Iterator[int]:
    """The numbers in a mask, in rising order."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def waiting(jobs: Sequence[Job]) -> TopologicalSorter[int]:
    """Jobs, by their places in the list, and what they wait for. Needs that are not listed are done already."""
    indices = {job.id: index for index, job in enumerate(jobs)}
    if len(indices) < len(jobs):
        raise ValueError("two jobs have the same id")
    sorter = TopologicalSorter[int]()
    for index, job in enumerate(jobs):
        sorter.add(index, *(indices[need] for need in job.needs & indices.keys()))
    with suppress(CycleError):  # those that wait for each other are never ready
        sorter.prepare()
    return sorter


def topological(jobs: Sequence[Job]) -> list[Job]:
    """Every job after what it needs, and in the order of the list as far as that allows."""
    sorter = waiting(jobs)
    ready = [*sorter.get_ready()]
    heapify(ready)
    order: list[int] = []
    while ready:
        order.append(heappop(ready))
        sorter.done(order[-1])
        for index in sorter.get_ready():
            heappush(ready, index)
    if len(order) < len(jobs):
        stuck = sorted(set(range(len(jobs))) - set(order))
        raise ValueError(f"jobs depend on each other in a cycle: {', '.join(jobs[index].id for index in stuck)}")
    return [jobs[index] for index in order]


def problem_of(jobs: Sequence[Job], room: Room) -> ScheduleProblem:
    """The problem of these jobs in this room, reduced to what decides the loads.

    A job is left out when it can run as soon as the last of what it needs is done, whatever is loaded when: a job
    without a model, and one whose last needs all bear its own model. Jobs of one model that wait for the same units are
    one unit. Neither changes the least cost. Raises as `plan.schedule` does.
    """
    order = topological(jobs)
    check(jobs, room)
    models = tuple(dict.fromkeys(job.model for job in jobs if job.model is not None))
    number = {model: index for index, model in enumerate(models)}
    owner, needs, then = _units(order, number)
    units_of = [0] * len(models)
    for unit, model_index in enumerate(owner):
        units_of[model_index] |= 1 << unit
    return ScheduleProblem(
        models=models,
        sizes=tuple(room.sizes[model] for model in models),
        costs=tuple(round(room.load_seconds[model] * 1e9) * _NANOSECOND + 1 for model in models),
        budget=room.budget,
        owner=tuple(owner),
        needs=tuple(needs),
        then=tuple(map(tuple, then)),
        units_of=tuple(units_of),
        resident=sum(1 << number[model] for model in set(room.resident) if model in number),
    )


def _units(order: Sequence[Job], number: Mapping[str, int]) -> tuple[list[int], list[int], list[list[int]]]:
    """Per unit its model, everything before it, and the units right after it."""
    owner: list[int] = []
    needs: list[int] = []
    then: list[list[int]] = []
    last: dict[str, int] = {}  # per job, the last units it stands for: itself, or what the job that was left out awaits
    same: dict[tuple[str, int], int] = {}
    for job in order:
        awaited = reduce(or_, (last[need] for need in job.needs if need in last), 0)
        before = reduce(or_, (needs[unit] for unit in bits(awaited)), 0)
        awaited &= ~before
        if job.model is None or (awaited and all(owner[unit] == number[job.model] for unit in bits(awaited))):
            last[job.id] = awaited
            continue
        unit = same.setdefault((job.model, before | awaited), len(owner))
        if unit == len(owner):
            owner.append(number[job.model])
            needs.append(before | awaited)
            then.append([])
            for before_it in bits(awaited):
                then[before_it].append(unit)
        last[job.id] = 1 << unit
    return owner, needs, then


def check(jobs: Sequence[Job], room: Room) -> None:
    """Raises NoRoomError if a model does not fit even alone, ValueError if its size or load time is not known."""
    for model in {*room.resident, *(job.model for job in jobs if job.model is not None)}:
        if model not in room.sizes or not 0 <= room.load_seconds.get(model, -1) < inf:
            raise ValueError(f"model {model} lacks a size or a load time")
    for job in jobs:
        if job.model is not None and room.sizes[job.model] > room.budget:
            raise NoRoomError(job.id, job.model, room.sizes[job.model], room.budget)
