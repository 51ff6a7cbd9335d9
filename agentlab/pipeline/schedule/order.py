"""Which jobs are ready, as others get done."""

from collections.abc import Sequence
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from heapq import heapify, heappop, heappush

from agentlab.pipeline.schedule.types import Job


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
