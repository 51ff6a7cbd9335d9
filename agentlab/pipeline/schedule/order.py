"""Which jobs are ready, as others get done."""

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush

from agentlab.pipeline.schedule.types import Job


class Waiting:
    """Jobs, by their places in the list, and what they still wait for. Needs that are not listed are done already."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        place = {job.id: index for index, job in enumerate(jobs)}
        if len(place) < len(jobs):
            raise ValueError("two jobs bear the same id")
        self._waits = [len(job.needs & place.keys()) for job in jobs]
        self._then: list[list[int]] = [[] for _ in jobs]
        for index, job in enumerate(jobs):
            for need in job.needs & place.keys():
                self._then[place[need]].append(index)

    def first(self) -> Iterable[int]:
        """Jobs that wait for nothing."""
        return [index for index, count in enumerate(self._waits) if not count]

    def finish(self, index: int) -> Iterable[int]:
        """A job is done: the jobs that waited for it last."""
        for then in self._then[index]:
            self._waits[then] -= 1
        return [then for then in self._then[index] if not self._waits[then]]


def topological(jobs: Sequence[Job]) -> list[Job]:
    """Every job after what it needs, and in the order of the list as far as that allows.

    Raises:
        ValueError: two jobs bear the same id, or jobs wait for each other.
    """
    waiting = Waiting(jobs)
    ready = [*waiting.first()]
    heapify(ready)
    order: list[int] = []
    while ready:
        order.append(heappop(ready))
        for index in waiting.finish(order[-1]):
            heappush(ready, index)
    if len(order) < len(jobs):
        stuck = sorted(set(range(len(jobs))) - set(order))
        raise ValueError(f"jobs wait for each other: {', '.join(jobs[index].id for index in stuck)}")
    return [jobs[index] for index in order]
