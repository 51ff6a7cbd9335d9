"""How often models are loaded: our schedule, against what servers do and against the best that is possible.

Three models, memory for two, twelve stages. Servers evict who was used least recently, because they cannot know what
comes next. A pipeline knows, and between branches it may choose. Rows:

    zigzag      three branches of four stages, one written after the other; stage i uses model i mod 3
    one chain   the same stages in a row: there is no choice but whom to evict
    uneven      as zigzag, but the models take 1, 2 and 3 GiB and as many seconds, and memory is for 5
    random      mean of 40 random graphs, each stage with a random model: going round in turn is the servers' worst case

The optimum is found by trying every order and every eviction, without our scheduler. `furthest` is the listed order
with the best evictions for it (Belady): what looking ahead gains without another order. Held: each row equals the
optimum, zigzag takes at least 40 % fewer loads than by the servers' rule, and no schedule more than 50 ms of CPU.

Usage: python tests/bench/pipeline_swaps.py    writes .agentlab/bench/pipeline-swaps.json; exit 1 beyond limits
"""

import platform
import sys
import time
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import combinations, count
from pathlib import Path
from random import Random
from statistics import mean

from agentlab import machine
from agentlab.pipeline.schedule.plan import least_recently_used, schedule
from agentlab.pipeline.schedule.problem import topological
from agentlab.pipeline.schedule.types import Job, Room
from agentlab.runs.atomic import write_json

OUT = Path(".agentlab/bench/pipeline-swaps.json")
STAGES = 12
GIB = 2**30
FEWER = 0.4  # than the servers' rule, in the row `zigzag`
CPU_LIMIT = 0.05  # seconds per schedule
EVEN = Room(dict.fromkeys("abc", GIB), dict.fromkeys("abc", 1.0), 2 * GIB)
UNEVEN = Room({"a": GIB, "b": 2 * GIB, "c": 3 * GIB}, {"a": 1.0, "b": 2.0, "c": 3.0}, 5 * GIB)


def branches(number: int) -> list[Job]:
    """Twelve stages in so many chains, listed chain after chain; stage i uses model i mod 3."""
    length = STAGES // number
    return [Job(f"stage {i + 1}", "abc"[i % 3], frozenset({f"stage {i}"} if i % length else ())) for i in range(STAGES)]


def random_graph(chance: Random) -> list[Job]:
    """Twelve stages, each with a random model, that needs each earlier one with a probability of 0.15."""
    jobs: list[Job] = []
    for i in range(STAGES):
        needs = frozenset(job.id for job in jobs if chance.random() < 0.15)
        jobs.append(Job(f"stage {i + 1}", chance.choice("abc"), needs))
    return jobs


def furthest_next_use(jobs: Sequence[Job], room: Room) -> float:
    """Seconds of loading in the order of the list, when whoever is used last or never again is evicted."""
    uses = [job.model for job in topological(jobs)]
    resident: list[str] = []
    seconds = 0.0
    for index, model in enumerate(uses):
        if model is None or model in resident:
            continue
        later = uses[index:]
        resident.sort(key=lambda name, later=later: later.index(name) if name in later else len(uses))  # type: ignore[misc]
        while sum(room.sizes[name] for name in (*resident, model)) > room.budget:
            resident.pop()
        resident.append(model)
        seconds += room.load_seconds[model]
    return seconds


def optimum(jobs: Sequence[Job], room: Room) -> float:
    """The fewest seconds of loading, from all orders of jobs and all sets of models that may be resident together."""
    names = list(room.sizes)
    fitting = [
        frozenset(some)
        for size in range(len(names) + 1)
        for some in combinations(names, size)
        if sum(room.sizes[name] for name in some) <= room.budget
    ]
    ticket = count()
    queue = [(0.0, next(ticket), frozenset[str](), frozenset[str]())]
    seen: set[tuple[frozenset[str], frozenset[str]]] = set()
    while True:
        seconds, _, done, resident = heappop(queue)
        if len(done) == len(jobs):
            return seconds
        if (done, resident) in seen:
            continue
        seen.add((done, resident))
        for job in jobs:
            if job.id not in done and job.needs <= done and job.model in resident:
                heappush(queue, (seconds, next(ticket), done | {job.id}, resident))
        for next_resident in fitting:
            extra = sum(room.load_seconds[name] for name in next_resident - resident)
            heappush(queue, (seconds + extra, next(ticket), done, next_resident))


def measure(title: str, graphs: Sequence[list[Job]], room: Room, missed: list[str]) -> list[dict[str, object]]:
    """Print one row, the mean of the graphs; note what misses its limit; the rows of the JSON file."""
    start = time.process_time()
    schedules = [schedule(jobs, room) for jobs in graphs]
    cpu = (time.process_time() - start) / len(graphs)
    ours = mean(plan.seconds for plan in schedules)
    peers = {
        "the optimum": mean(optimum(jobs, room) for jobs in graphs),
        "least recently used": mean(least_recently_used(jobs, room).seconds for jobs in graphs),
        "furthest next use, as listed": mean(furthest_next_use(jobs, room) for jobs in graphs),
    }
    numbers = "".join(f"{seconds:>10.4g}" for seconds in (ours, *peers.values()))
    fewer = 1 - ours / peers["least recently used"]
    peak = max(plan.peak for plan in schedules) / GIB
    print(f"{title:<12}{numbers}{fewer:>10.0%}{peak:>10.1f}{cpu * 1e3:>10.2f}")
    if ours != peers["the optimum"]:
        missed.append(f"{title}: {ours:g} s of loading, and {peers['the optimum']:g} are possible")
    if title == "zigzag" and fewer < FEWER:
        missed.append(f"{title}: only {fewer:.0%} less than with the least recently used evicted")
    if cpu > CPU_LIMIT:
        missed.append(f"{title}: the schedule took {cpu * 1e3:.0f} ms of CPU")
    return [
        {
            "row": f"Loading, {title}",
            "ours": ours,
            "peer": seconds,
            "peer_name": name,
            "unit": "s" if room is UNEVEN else "loads",
            "better": "lower",
            "ratio": round(seconds / ours, 3),
        }
        for name, seconds in peers.items()
    ]


def main() -> int:
    """Measure, print, write; the exit status."""
    missed: list[str] = []
    print("Seconds of loading; every load takes one, but in `uneven`")
    print(f"{'':<12}{'ours':>10}{'optimum':>10}{'LRU':>10}{'furthest':>10}{'< LRU':>10}{'peak GiB':>10}{'CPU ms':>10}")
    rows = measure("zigzag", [branches(3)], EVEN, missed)
    rows += measure("one chain", [branches(1)], EVEN, missed)
    rows += measure("uneven", [branches(3)], UNEVEN, missed)
    rows += measure("random", [random_graph(Random(seed)) for seed in range(40)], EVEN, missed)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    about = {"machine": machine.describe().as_dict(), "versions": {"python": platform.python_version()}}
    write_json(OUT, {"rows": rows, **about})
    print(f"written to {OUT}" + "".join(f"\nMISSED: {text}" for text in missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
