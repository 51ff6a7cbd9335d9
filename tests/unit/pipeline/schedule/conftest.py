"""Graphs of jobs, the rules that every schedule keeps, and the optimum found the plain way."""

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count

from hypothesis import strategies as st

from agentlab.pipeline.schedule.types import Evict, Job, Load, Room, RunJob, Schedule


def jobs_of(text: str) -> list[Job]:
    """Jobs from words such as `draft:a`, `judge:b<draft,fact`, and `post<judge` for one without a model."""
    jobs = []
    for word in text.split():
        name, _, needs = word.partition("<")
        job, _, model = name.partition(":")
        jobs.append(Job(job, model or None, frozenset(needs.split(",")) if needs else frozenset()))
    return jobs


def room_of(budget: int, sizes: str = "a=1 b=1 c=1 d=1 e=1", resident: str = "") -> Room:
    """Models that take so many bytes, and as many seconds to load."""
    parsed = {model: int(size) for model, size in (word.split("=") for word in sizes.split())}
    return Room(parsed, {model: float(size) for model, size in parsed.items()}, budget, tuple(resident.split()))


def words(schedule: Schedule) -> str:
    """A schedule in short: +a loads, -a evicts."""
    signs = {Load: "+", Evict: "-"}
    return " ".join(step.job if isinstance(step, RunJob) else signs[type(step)] + step.model for step in schedule.steps)


@st.composite
def problems(draw: st.DrawFn, jobs: int, models: int, local: bool = False) -> tuple[list[Job], Room]:
    """Jobs in any order that know no circle, and a room in which every model fits alone."""
    names = "abcdefg"[: draw(st.integers(1, models))]
    sizes = {name: draw(st.integers(1, 6)) for name in names}
    load_seconds = {name: draw(st.sampled_from((0.0, 0.1, 0.3, 1.0, 2.5))) for name in names}
    budget = draw(st.integers(max(sizes.values()), max(sizes.values()) + 8))
    resident = draw(st.lists(st.sampled_from(names), unique=True))
    choices = st.sampled_from(names) if local else st.one_of(st.none(), st.sampled_from(names))
    all_jobs: list[Job] = []
    for number in range(draw(st.integers(0, jobs))):
        needs = draw(st.frozensets(st.sampled_from(all_jobs), max_size=3)) if all_jobs else frozenset()
        all_jobs.append(Job(f"j{number}", draw(choices), frozenset(need.id for need in needs)))
    listed = draw(st.permutations(all_jobs)) if draw(st.booleans()) else all_jobs
    return list(listed), Room(sizes, load_seconds, budget, tuple(resident))


def assert_valid(jobs: Sequence[Job], room: Room, schedule: Schedule) -> None:
    """Each job once, after its needs, beside its model; never more bytes than the budget once there is a choice."""
    by_name = {job.id: job for job in jobs}
    done: list[str] = []
    loaded = list(room.resident)
    sums = []
    for step in schedule.steps:
        match step:
            case Load(model):
                assert model not in loaded
                loaded.append(model)
            case Evict(model):
                loaded.remove(model)
            case RunJob(name):
                assert by_name[name].needs & by_name.keys() <= set(done)
                assert by_name[name].model in (None, *loaded)
                done.append(name)
        sums.append(sum(room.sizes[model] for model in loaded))
        if not isinstance(step, Evict):  # only evictions help when the models resident beforehand are too large
            assert sums[-1] <= room.budget
    assert sorted(done) == sorted(by_name)
    assert schedule.resident_bytes() == tuple(sums)


def least_seconds(jobs: Sequence[Job], room: Room) -> float:
    """The optimum, from all orders of single steps: no job left out, no eviction thought superfluous."""
    ticket = count()
    queue = [(0.0, next(ticket), frozenset[str](), frozenset(room.resident))]
    seen: set[tuple[frozenset[str], frozenset[str]]] = set()
    while queue:
        seconds, _, done, loaded = heappop(queue)
        if len(done) == len(jobs):
            return seconds
        if (done, loaded) in seen:
            continue
        seen.add((done, loaded))
        used = sum(room.sizes[model] for model in loaded)
        steps = [(0.0, done, loaded - {model}) for model in loaded]
        if used <= room.budget:
            ready = [job for job in jobs if job.needs <= done and (job.model is None or job.model in loaded)]
            steps += [(0.0, done | {job.id}, loaded) for job in ready]
        for model in room.sizes.keys() - loaded:
            if used + room.sizes[model] <= room.budget:
                steps.append((room.load_seconds[model], done, loaded | {model}))
        for extra, later, resident in steps:
            heappush(queue, (seconds + extra, next(ticket), later, resident))
    raise AssertionError("no way to the end")
