"""The greedy way against the optimum: how far it may fall behind."""

from random import Random

from hypothesis import given, settings

from agentlab.pipeline.schedule.problem import ScheduleProblem, Way, problem_of
from agentlab.pipeline.schedule.search import cheap, cheapest
from agentlab.pipeline.schedule.types import Job, Room
from tests.unit.pipeline.schedule.conftest import problems

PLENTY = 1_000_000  # moves


def optimum(problem: ScheduleProblem) -> int:
    solution = cheapest(problem, PLENTY)
    assert solution is not None
    return solution.cost


def replayed(problem: ScheduleProblem, solution: Way) -> int:
    """Its cost once more, from its moves, each of which must fit; it must end with all done."""
    state, cost = problem.start(solution.kept), 0
    for move in solution.moves:
        assert problem.short(state.resident & ~move.evict, move.load) <= 0
        state, cost = problem.after(state, move), cost + problem.costs[move.load]
    assert state == problem.end
    return cost


@settings(max_examples=60)
@given(problems(jobs=20, models=6, local=True))
def test_it_is_at_most_half_again_the_optimum_and_never_below(jobs_and_room: tuple[list[Job], Room]) -> None:
    problem = problem_of(*jobs_and_room)
    best = optimum(problem)
    solution = cheap(problem, width=16)
    assert solution.cost == replayed(problem, solution)
    assert best <= solution.cost <= 1.5 * best


@settings(max_examples=60)
@given(problems(jobs=20, models=6, local=True))
def test_even_the_narrowest_way_reaches_the_end(jobs_and_room: tuple[list[Job], Room]) -> None:
    problem = problem_of(*jobs_and_room)
    solution = cheap(problem, width=1)
    assert optimum(problem) <= solution.cost == replayed(problem, solution)


def test_on_random_graphs_of_forty_jobs_it_is_near_the_optimum_on_average() -> None:
    chance = Random(4)
    ratios = []
    for _ in range(20):
        jobs = [
            Job(
                f"j{number}", chance.choice("abcde"), frozenset(f"j{n}" for n in range(number) if chance.random() < 0.1)
            )
            for number in range(40)
        ]
        problem = problem_of(jobs, Room(dict.fromkeys("abcde", 1), dict.fromkeys("abcde", 1.0), budget=3))
        ratios.append(cheap(problem, width=16).cost / optimum(problem))
    assert sum(ratios) / len(ratios) < 1.03


def test_where_the_choices_are_many_those_with_the_furthest_next_use_are_evicted() -> None:
    # Twelve models fit, and a chain comes back to them in turn: nine choices are tried of the twelve.
    names = [f"m{number}" for number in range(13)]
    chain = names + names[:12]
    jobs = [Job(str(index), model, frozenset({str(index - 1)})) for index, model in enumerate(chain)]
    problem = problem_of(jobs, Room(dict.fromkeys(names, 1), dict.fromkeys(names, 1.0), budget=12))
    assert cheap(problem, width=1).cost == optimum(problem)
