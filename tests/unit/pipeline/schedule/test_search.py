"""The search for the optimum, and where it gives up."""

from agentlab.pipeline.schedule.problem import Move, problem_of
from agentlab.pipeline.schedule.search import cheapest
from tests.unit.pipeline.schedule.conftest import jobs_of, room_of

ZIGZAG = jobs_of("1:a 2:b<1 3:c<2 4:a<3 5:b<4 6:c<5")


def test_the_moves_are_whom_to_evict_and_what_to_load() -> None:
    solution = cheapest(problem_of(ZIGZAG, room_of(budget=2)), max_moves=100)
    assert solution is not None
    a, b, c = range(3)
    assert solution.moves == (
        Move(0, a),
        Move(0, b),
        Move(1 << b, c),
        Move(0, b),
    )  # a has no work left: nobody to evict


def test_it_gives_up_when_the_moves_are_too_many() -> None:
    assert cheapest(problem_of(ZIGZAG, room_of(budget=2)), max_moves=4) is None


def test_seconds_are_summed_exactly_so_that_ties_are_ties() -> None:
    jobs = jobs_of("x:a y:b z:c")  # 0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1
    room = room_of(budget=1)
    problem = problem_of(jobs, type(room)(room.sizes, {"a": 0.1, "b": 0.2, "c": 0.3}, 1))
    solution = cheapest(problem, max_moves=100)
    assert solution is not None
    assert [move.load for move in solution.moves] == [0, 1, 2]


def test_of_ways_that_take_equally_long_the_one_with_fewer_loads_is_cheaper() -> None:
    room = room_of(budget=2)
    free = type(room)(room.sizes, dict.fromkeys(room.sizes, 0.0), 2)
    solution = cheapest(problem_of(ZIGZAG, free), max_moves=100)
    assert solution is not None
    assert len(solution.moves) == 4
