"""From the jobs to the units whose loads are planned, and back to the steps of all jobs."""

from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush

from agentlab.pipeline.schedule.problem import ScheduleProblem, Way, check, problem_of, topological, waiting
from agentlab.pipeline.schedule.search import cheap, cheapest
from agentlab.pipeline.schedule.types import Evict, Job, Load, Room, RunJob, Schedule, Step

# How many moves may be looked at. Up to _SMALL units none of tens of thousands of graphs, some of them bred to be hard,
# took 10,000. Beyond, a way has about as many moves as there are units, and the more models, the more there are to
# choose from: with these bounds both searches together take tens of milliseconds for 30 units, half a second for 500,
# and as long for 5,000 of four models, of which one way alone is followed.
_SMALL = 14
_EXACT = 70_000
_GREEDY = 10_000_000
_WIDEST = 32


def schedule(jobs: Sequence[Job], room: Room) -> Schedule:
    """An order of the jobs, with loads and evictions, that takes few seconds of loading; then few loads.

    Exact while the search for the optimum is short: for 14 units of local work it is, and mostly far beyond.
    Else greedy, and never worse than `least_recently_used`. Equals keep the order of the list, but jobs without a model
    come as early as they can, so that they may run beside the others. The same jobs and room give the same schedule.

    Raises:
        NoRoomError: a model does not fit even alone.
        ValueError: two jobs bear the same id or wait for each other, or a model has no size or load seconds.
    """
    problem = problem_of(jobs, room)
    count = max(1, len(problem.owner))
    exact = cheapest(problem, _EXACT if count <= _SMALL else _EXACT // count)
    if exact is not None:
        return Schedule(tuple(_steps(jobs, room, _changes(problem, room, exact))), "exact", room)
    greedy_way = cheap(problem, min(_WIDEST, 1 + _GREEDY // (count**2 * len(problem.models))))
    simple = [step for step in least_recently_used(jobs, room).steps if not isinstance(step, RunJob)]
    cost = dict(zip(problem.models, problem.costs, strict=True))
    if sum(cost[step.model] for step in simple if isinstance(step, Load)) < greedy_way.cost:
        return Schedule(tuple(_steps(jobs, room, simple)), "greedy", room)
    return Schedule(tuple(_steps(jobs, room, _changes(problem, room, greedy_way))), "greedy", room)


def _changes(problem: ScheduleProblem, room: Room, way: Way) -> Iterator[Load | Evict]:
    """Loads, and the evictions that they need: a model without work stays as long as there is room."""
    resident_models = dict.fromkeys(room.resident)
    bit = {model: 1 << number for number, model in enumerate(problem.models)}

    def make_room(kept_mask: int, size: int) -> Iterator[Evict]:
        short = sum(room.sizes[model] for model in resident_models) + size - room.budget
        for model in [model for model in resident_models if not bit.get(model, 0) & kept_mask]:
            if short > 0:
                short -= room.sizes[model]
                del resident_models[model]
                yield Evict(model)

    yield from make_room(way.kept, 0)
    state = problem.start(way.kept)
    for move in way.moves:
        model = problem.models[move.load]
        yield from make_room(state.resident & ~move.evict, room.sizes[model])
        resident_models[model] = None
        yield Load(model)
        state = problem.after(state, move)


def _steps(jobs: Sequence[Job], room: Room, changes: Iterable[Load | Evict]) -> Iterator[Step]:
    """The changes, with every job as early as its needs and its model allow."""
    sorter = waiting(jobs)
    ready = [(jobs[index].model is not None, index) for index in sorter.get_ready()]
    heapify(ready)
    parked: dict[str, list[tuple[bool, int]]] = {}  # ready but for their model
    resident_models = set(room.resident)
    for change in (*changes, None):
        while ready and sum(room.sizes[model] for model in resident_models) <= room.budget:
            local, index = heappop(ready)
            job = jobs[index]
            if job.model is None or job.model in resident_models:
                yield RunJob(job.id)
                sorter.done(index)
                for next_index in sorter.get_ready():
                    heappush(ready, (jobs[next_index].model is not None, next_index))
            else:
                parked.setdefault(job.model, []).append((local, index))
        if isinstance(change, Load):
            resident_models.add(change.model)
            for entry in parked.pop(change.model, []):
                heappush(ready, entry)
        elif change:
            resident_models.remove(change.model)
        if change:
            yield change


def least_recently_used(jobs: Sequence[Job], room: Room) -> Schedule:
    """The rule of servers that cannot know what will be asked next: whoever was used least recently is evicted.

    The router of llama.cpp's server and LocalAI do so; a schedule is compared with it. The jobs run as listed (what
    they need first), each model loaded when its job comes. Raises as `schedule` does.
    """
    check(jobs, room)
    resident_models = dict.fromkeys(room.resident)  # least recently used first
    steps: list[Step] = list(_make_room(resident_models, room, 0))
    for job in topological(jobs):
        if job.model is not None:
            if job.model in resident_models:
                del resident_models[job.model]  # it becomes the last
            else:
                steps += [*_make_room(resident_models, room, room.sizes[job.model]), Load(job.model)]
            resident_models[job.model] = None
        steps.append(RunJob(job.id))
    return Schedule(tuple(steps), "lru", room)


def _make_room(resident_models: dict[str, None], room: Room, size: int) -> list[Step]:
    steps: list[Step] = []
    while sum(room.sizes[model] for model in resident_models) + size > room.budget:
        oldest = next(iter(resident_models))
        del resident_models[oldest]
        steps.append(Evict(oldest))
    return steps
