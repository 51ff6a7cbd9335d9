"""The least cost of loading, by best-first search (A*) over the states between loads.

The bound is the cost of loading once every model that is missing. No load lowers it by more than its own cost, so the
first end that leaves the queue is the cheapest. Of equally cheap ways the one that follows the list of jobs goes first.
"""

from collections.abc import Iterator
from heapq import heappop, heappush

from agentlab.pipeline.schedule.problem import Move, Problem, State, Way


def cheapest(problem: Problem, most: int) -> Way | None:
    """The way of least cost; None if more than `most` moves had to be looked at."""
    queue: list[tuple[int, tuple[int, ...], State, Way]] = []  # the bound, the choices up to here, where, how
    reached: dict[State, int] = {}
    for choice, (kept, state) in enumerate(problem.starts()):
        if choice == most:
            return None
        reached[state] = 0
        heappush(queue, (problem.missing_cost(state), (choice,), state, Way(0, kept)))
    looked = 0
    while queue:
        _, choices, state, way = heappop(queue)
        if state == problem.end:
            return way
        if way.cost > reached[state]:
            continue  # a cheaper way to it was found after this one was queued
        for choice, move in enumerate(_moves(problem, state)):
            looked += 1
            if looked > most:
                return None
            after, further = problem.after(state, move), way.further(move, problem.costs[move.load])
            if after not in reached or further.cost < reached[after]:
                reached[after] = further.cost
                heappush(queue, (further.cost + problem.missing_cost(after), (*choices, choice), after, further))
    raise AssertionError("every model fits alone, so some load is always possible")


def _moves(problem: Problem, state: State) -> Iterator[Move]:
    return (Move(evict, model) for model in problem.wanted(state) for evict in problem.evictions(state, model))
