"""The rule of servers that cannot know what will be asked next: whoever was used least recently is evicted.

The router of llama.cpp's server and LocalAI do so. It is what a schedule is compared with.
"""

from collections.abc import Sequence

from agentlab.pipeline.schedule.order import topological
from agentlab.pipeline.schedule.types import Evict, Job, Load, Room, Run, Schedule, Step
from agentlab.pipeline.schedule.units import check


def least_recently_used(jobs: Sequence[Job], room: Room) -> Schedule:
    """The jobs as listed (what they need first), each model loaded when its job comes.

    Raises:
        NoRoomError: a model does not fit even alone.
        ValueError: as of `schedule`.
    """
    check(jobs, room)
    held = dict.fromkeys(room.resident)  # least recently used first
    steps: list[Step] = list(_make_room(held, room, 0))
    for job in topological(jobs):
        if job.model is not None:
            if job.model in held:
                del held[job.model]  # it becomes the last
            else:
                steps += [*_make_room(held, room, room.sizes[job.model]), Load(job.model)]
            held[job.model] = None
        steps.append(Run(job.id))
    return Schedule(tuple(steps), "lru", room)


def _make_room(held: dict[str, None], room: Room, size: int) -> list[Step]:
    steps: list[Step] = []
    while sum(room.sizes[model] for model in held) + size > room.budget:
        oldest = next(iter(held))
        del held[oldest]
        steps.append(Evict(oldest))
    return steps
