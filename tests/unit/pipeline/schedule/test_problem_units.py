"""What jobs are reduced to before loads are planned."""

import pytest

from agentlab.pipeline.schedule.problem import bits, problem_of
from tests.unit.pipeline.schedule.conftest import jobs_of, room_of


def reduced(text: str) -> list[tuple[str, list[int]]]:
    """Each unit's model, and the units before it."""
    problem = problem_of(jobs_of(text), room_of(budget=1))
    return [
        (problem.models[owner], list(bits(needs))) for owner, needs in zip(problem.owner, problem.needs, strict=True)
    ]


def test_jobs_that_wait_for_the_same_are_one_unit() -> None:
    assert reduced("x:a y:a z:b") == [("a", []), ("b", [])]


def test_a_chain_of_one_model_is_one_unit() -> None:
    assert reduced("x:a y:a<x z:a<y end:b<z") == [("a", []), ("b", [0])]


def test_jobs_without_a_model_pass_on_what_they_wait_for() -> None:
    assert reduced("x:a remote<x y:b<remote other") == [("a", []), ("b", [0])]
    assert reduced("x:a remote<x y:a<remote") == [("a", [])]


def test_a_job_after_two_units_of_its_model_is_none_of_its_own() -> None:
    assert reduced("x:b y:a z:a<x sum:a<y,z end:b<sum") == [("b", []), ("a", []), ("a", [0]), ("b", [0, 1, 2])]


def test_a_job_that_also_waits_for_another_model_is_one_of_its_own() -> None:
    assert reduced("x:a y:b z:a<x,y") == [("a", []), ("b", []), ("a", [0, 1])]


def test_what_is_needed_anyway_through_another_is_not_awaited_twice() -> None:
    assert reduced("x:a y:b<x z:b<x,y") == [("a", []), ("b", [0])]


def test_units_come_after_what_they_need_however_the_jobs_are_listed() -> None:
    assert reduced("last:b<first first:a") == [("a", []), ("b", [0])]


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    room = room_of(budget=1)
    with pytest.raises(ValueError, match="model a lacks a size or a load time"):
        problem_of(jobs_of("x:a"), type(room)(room.sizes, {**room.load_seconds, "a": seconds}, 1))
