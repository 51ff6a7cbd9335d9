"""Jobs reduced to what decides the loads.

A job is left out when it can run as soon as the last of what it needs is done, whatever is loaded when: a job without
a model, and one whose last needs all bear its own model. Jobs of one model that wait for the same units are one unit.
Neither changes the least cost.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import reduce
from graphlib import CycleError, TopologicalSorter
from heapq import heapify, heappop, heappush
from math import inf
from operator import or_

from agentlab.pipeline.schedule.problem import Problem, bits
from agentlab.pipeline.schedule.types import Job, NoRoomError, Room

_NANOSECOND = 1 << 24  # one load costs its nanoseconds times this, plus one: fewer loads break ties


def waiting(jobs: Sequence[Job]) -> TopologicalSorter[int]:
    """Jobs, by their places in the list, and what they wait for. Needs that are not listed are done already.

    Raises:
        ValueError: two jobs bear the same id.
    """
    place = {job.id: index for index, job in enumerate(jobs)}
    if len(place) < len(jobs):
        raise ValueError("two jobs bear the same id")
    found = TopologicalSorter[int]()
    for index, job in enumerate(jobs):
        found.add(index, *(place[need] for need in job.needs & place.keys()))
    with suppress(CycleError):  # those that wait for each other are never ready
        found.prepare()
    return found


def topological(jobs: Sequence[Job]) -> list[Job]:
    """Every job after what it needs, and in the order of the list as far as that allows.

    Raises:
        ValueError: two jobs bear the same id, or jobs wait for each other.
    """
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
        raise ValueError(f"jobs wait for each other: {', '.join(jobs[index].id for index in stuck)}")
    return [jobs[index] for index in order]


def of(jobs: Sequence[Job], room: Room) -> Problem:
    """The problem of these jobs in this room.

    Raises:
        NoRoomError: a model does not fit even alone.
        ValueError: two jobs bear the same id, need each other in a circle, or a model without size or load seconds.
    """
    order = topological(jobs)
    check(jobs, room)
    models = tuple(dict.fromkeys(job.model for job in jobs if job.model is not None))
    number = {model: index for index, model in enumerate(models)}
    owner, needs, then = _units(order, number)
    return Problem(
        models=models,
        sizes=tuple(room.sizes[model] for model in models),
        costs=tuple(round(room.load_seconds[model] * 1e9) * _NANOSECOND + 1 for model in models),
        budget=room.budget,
        owner=tuple(owner),
        needs=tuple(needs),
        then=tuple(map(tuple, then)),
        units_of=tuple(sum(1 << unit for unit, by in enumerate(owner) if by == index) for index in range(len(models))),
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
    """Whether each model fits alone, and its size and load time are known.

    Raises:
        NoRoomError: a model does not fit even alone.
        ValueError: a model has no size, or no time that loading it takes.
    """
    for model in {*room.resident, *(job.model for job in jobs if job.model is not None)}:
        if model not in room.sizes or not 0 <= room.load_seconds.get(model, -1) < inf:
            raise ValueError(f"model {model} has no size, or no time that loading it takes")
    for job in jobs:
        if job.model is not None and room.sizes[job.model] > room.budget:
            raise NoRoomError(job.id, job.model, room.sizes[job.model], room.budget)
