"""Ways to the end over the states between loads: the cheapest (A*), and through many units a cheap one (beam)."""

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush, nsmallest
from itertools import islice

from agentlab.pipeline.schedule.problem import Move, ScheduleProblem, State, Way, bits

_CHOICES = 8  # of evictions, per load
_NEXT = 8  # units of a model, the first ones left, among which its nearest is sought


def cheapest(problem: ScheduleProblem, max_moves: int) -> Way | None:
    """The way of least cost of loading, by best-first search (A*); None if it takes more than `max_moves` moves.

    The bound is the cost of loading once every model that is missing. No load lowers it by more than its own cost, so
    the first end that leaves the queue is the cheapest. Of equally cheap ways the one that follows the list of jobs
    goes first.
    """
    queue: list[tuple[int, tuple[int, ...], State, Way]] = []  # the bound, the choices up to here, where, how
    reached: dict[State, int] = {}
    for choice, (kept_mask, state) in enumerate(problem.starts()):
        if choice == max_moves:
            return None
        reached[state] = 0
        heappush(queue, (problem.missing_cost(state), (choice,), state, Way(0, kept_mask)))
    looked = 0
    while queue:
        _, choices, state, way = heappop(queue)
        if state == problem.end:
            return way
        if way.cost > reached[state]:
            continue  # a cheaper way to it was found after this one was queued
        for choice, move in enumerate(_all_moves(problem, state)):
            looked += 1
            if looked > max_moves:
                return None
            after, further = problem.after(state, move), way.further(move, problem.costs[move.load])
            if after not in reached or further.cost < reached[after]:
                reached[after] = further.cost
                heappush(queue, (further.cost + problem.missing_cost(after), (*choices, choice), after, further))
    raise AssertionError("every model fits alone, so some load is always possible")


def _all_moves(problem: ScheduleProblem, state: State) -> Iterator[Move]:
    for model in problem.wanted_models(state):
        for evict in problem.evictions(state, model):
            yield Move(evict, model)


def cheap(problem: ScheduleProblem, width: int) -> Way:
    """A way to the end, with `width` states kept after each load; the narrowest case is the greedy rule.

    Load by load, those states are kept whose cost, with that of loading once every model that is missing, is least per
    unit done. Whom to evict is tried out; where the choices are many, it is a few of them and those with the furthest
    next use (L. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 5,
    1966).
    """
    reached = {state: Way(0, kept_mask) for kept_mask, state in islice(problem.starts(), _CHOICES)}
    best: Way | None = None
    while reached:
        end = reached.pop(problem.end, None)
        if end and (best is None or end.cost < best.cost):
            best = end
        rates: dict[State, float] = {}
        for state, way in reached.items():
            bound = way.cost + problem.missing_cost(state)
            if best is None or bound < best.cost:
                rates[state] = bound / (1 + state.done.bit_count())
        best_states = nsmallest(width, rates, key=rates.__getitem__)
        reached = _one_load_later(problem, {state: reached[state] for state in best_states})
    assert best is not None  # every model fits alone, so some load is always possible
    return best


def _one_load_later(problem: ScheduleProblem, ways: Mapping[State, Way]) -> dict[State, Way]:
    reached: dict[State, Way] = {}
    for state, way in ways.items():
        for move in _few_moves(problem, state):
            after, further = problem.after(state, move), way.further(move, problem.costs[move.load])
            if after not in reached or further.cost < reached[after].cost:
                reached[after] = further
    return reached


def _few_moves(problem: ScheduleProblem, state: State) -> Iterator[Move]:
    for model in problem.wanted_models(state):
        choices = [*islice(problem.evictions(state, model), _CHOICES)]
        if len(choices) == _CHOICES:
            choices.append(_furthest(problem, state, model))
        yield from (Move(evict, model) for evict in choices)


def _furthest(problem: ScheduleProblem, state: State, model: int) -> int:
    """Models to evict for another; those come first whose nearest unit has most others to wait for."""

    def waits_for(resident: int) -> int:
        units = islice(bits(problem.units_of[resident] & ~state.done), _NEXT)
        return min((problem.needs[unit] & ~state.done).bit_count() for unit in units)

    evict = 0
    for resident in sorted(bits(state.resident), key=waits_for, reverse=True):
        if problem.short(state.resident & ~evict, model) <= 0:
            break
        evict |= 1 << resident
    return evict
