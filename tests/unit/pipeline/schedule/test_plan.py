"""A schedule keeps the rules, and no order takes fewer seconds of loading."""

import time
from random import Random

import pytest
from hypothesis import given, settings

from agentlab.errors import GateError
from agentlab.pipeline.schedule.plan import least_recently_used, schedule
from agentlab.pipeline.schedule.types import Job, NoRoomError, Room
from tests.unit.pipeline.schedule.conftest import assert_valid, jobs_of, least_seconds, problems, room_of, words

ROUNDING = 1e-9  # seconds are summed in another order


@given(problems(jobs=40, models=7))
def test_every_schedule_keeps_the_rules(problem: tuple[list[Job], Room]) -> None:
    assert_valid(*problem, schedule(*problem))


@settings(max_examples=60)
@given(problems(jobs=6, models=3))
def test_no_order_at_all_takes_fewer_seconds(problem: tuple[list[Job], Room]) -> None:
    result = schedule(*problem)
    assert result.method == "exact"
    assert result.seconds == pytest.approx(least_seconds(*problem), abs=ROUNDING)


@given(problems(jobs=14, models=7))
def test_fourteen_jobs_are_always_solved_exactly(problem: tuple[list[Job], Room]) -> None:
    assert schedule(*problem).method == "exact"


@given(problems(jobs=40, models=7))
def test_it_is_never_worse_than_evicting_the_least_recently_used(problem: tuple[list[Job], Room]) -> None:
    assert schedule(*problem).seconds <= least_recently_used(*problem).seconds + ROUNDING


@given(problems(jobs=25, models=5))
def test_the_same_jobs_and_room_give_the_same_schedule(problem: tuple[list[Job], Room]) -> None:
    jobs, room = problem
    same_jobs = [Job(job.id, job.model, frozenset(sorted(job.needs, reverse=True))) for job in jobs]
    assert schedule(jobs, room).steps == schedule(same_jobs, room).steps


def test_jobs_of_one_model_run_together() -> None:
    result = schedule(jobs_of("one:a two:b three:a four:b"), room_of(budget=1))
    assert words(result) == "+a one three -a +b two four"
    assert (result.loads, result.seconds, result.peak) == (2, 2.0, 1)
    assert result.resident_bytes() == (1, 1, 1, 0, 1, 1, 1)


def test_a_branch_waits_for_the_model_that_is_needed_anyway() -> None:
    jobs = jobs_of("draft:a check:b<draft polish:a<check other:b last:a<other")
    result = schedule(jobs, room_of(budget=1))
    assert words(result) == "+a draft -a +b check other -b +a polish last"
    assert least_recently_used(jobs, room_of(budget=1)).loads == 5


def test_the_model_that_is_cheaper_to_load_is_evicted() -> None:
    jobs = jobs_of("1:a 2:b<1 3:c<2 4:b<3 5:a<4")  # b is used next, but a takes nine seconds
    room = Room({"a": 1, "b": 1, "c": 1}, {"a": 9.0, "b": 1.0, "c": 1.0}, budget=2)
    assert words(schedule(jobs, room)) == "+a 1 +b 2 -b +c 3 -c +b 4 5"


def test_equals_keep_the_order_of_the_list() -> None:
    assert words(schedule(jobs_of("x:b y:a z:c"), room_of(budget=1))) == "+b x -b +a y -a +c z"


def test_a_job_without_a_model_runs_as_early_as_it_can() -> None:
    jobs = jobs_of("slow:a next:b<slow remote<slow sum:b<remote,next early")
    assert words(schedule(jobs, room_of(budget=1))) == "early +a slow remote -a +b next sum"


def test_a_need_that_is_not_listed_is_done_already() -> None:
    jobs = jobs_of("judge:b<draft last:a<judge")  # what is left after draft, with its model still loaded
    assert words(schedule(jobs, room_of(budget=1, resident="a"))) == "-a +b judge -b +a last"


def test_a_resident_model_is_used_first_and_kept_while_there_is_room() -> None:
    assert words(schedule(jobs_of("x:a y:b"), room_of(budget=2, resident="b"))) == "y +a x"
    assert words(schedule(jobs_of("x:a y:b"), room_of(budget=2, resident="c b"))) == "y -c +a x"


def test_a_budget_that_shrank_is_kept_before_anything_runs() -> None:
    assert words(schedule(jobs_of("x:a y:b"), room_of(budget=1, resident="a b c"))) == "-b -c x -a +b y"


def test_nothing_to_do_loads_nothing() -> None:
    result = schedule([], room_of(budget=1, resident="a"))
    assert (result.steps, result.loads, result.seconds, result.peak) == ((), 0, 0, 0)


@pytest.mark.parametrize("solve", [schedule, least_recently_used])
def test_a_model_that_does_not_fit_alone_is_named_with_what_is_missing(solve: object) -> None:
    room = Room({"small": 2**20, "large": 5000 * 2**20}, {"small": 1.0, "large": 9.0}, budget=4096 * 2**20)
    with pytest.raises(NoRoomError, match=r"large needs 5,000 MiB.*4,096 MiB: judge needs another 904 MiB") as caught:
        solve(jobs_of("draft:small judge:large<draft"), room)  # type: ignore[operator]
    assert isinstance(caught.value, GateError)
    assert caught.value.exit_code == 5
    assert (caught.value.job, caught.value.model) == ("judge", "large")
    assert caught.value.hint is not None
    assert "ram_gib" in caught.value.hint


def test_a_model_that_does_not_fit_and_has_no_job_does_not_matter() -> None:
    assert words(schedule(jobs_of("x:a"), room_of(budget=1, sizes="a=1 b=9", resident="b"))) == "-b +a x"


@pytest.mark.parametrize("solve", [schedule, least_recently_used])
@pytest.mark.parametrize(
    ("jobs", "message"),
    [("x:a x:a", "same id"), ("x:a<y y:a<x z:a", "in a cycle: x, y"), ("x:unknown", "unknown lacks a size")],
)
def test_what_cannot_be_scheduled_is_refused(solve: object, jobs: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve(jobs_of(jobs), room_of(budget=1))  # type: ignore[operator]


def test_a_batch_loads_as_often_as_one_item() -> None:
    one = [Job(f"s{stage}", "abc"[stage % 3], frozenset({f"s{stage - 1}"})) for stage in range(12)]
    batch = [
        Job(f"{item}:{job.id}", job.model, frozenset(f"{item}:{need}" for need in job.needs))
        for item in range(30)
        for job in one
    ]
    result = schedule(batch, room_of(budget=2))
    assert result.method == "exact"
    assert result.loads == schedule(one, room_of(budget=2)).loads == 7


def test_five_hundred_jobs_over_thirty_models_take_about_a_second_at_most() -> None:
    chance = Random(0)
    sizes = {f"m{number}": chance.randint(3, 10) for number in range(30)}
    jobs = [
        Job(
            f"j{number}",
            chance.choice([*sizes]),
            frozenset(f"j{need}" for need in range(number) if chance.random() < 4e-3),
        )
        for number in range(500)
    ]
    room = Room(sizes, {model: size / 10 for model, size in sizes.items()}, budget=70)
    start_time = time.process_time()
    result = schedule(jobs, room)
    assert time.process_time() - start_time < 2  # 0.4 on a quiet core
    assert result.method == "greedy"
    assert_valid(jobs, room, result)
    assert result.seconds < 0.5 * least_recently_used(jobs, room).seconds


@pytest.mark.parametrize("budget", [1000, 2500])
def test_the_most_stages_and_visits_with_four_models_each_take_about_a_second_at_most(budget: int) -> None:
    models = {f"m{number}": 1000 - 100 * number for number in range(4)}
    jobs: list[Job] = []
    for step in range(64 * 20):
        before = frozenset({f"{step - 1}/="})
        jobs += [Job(f"{step}/{model}", model, before) for model in models]
        jobs.append(Job(f"{step}/=", None, frozenset(f"{step}/{model}" for model in models)))
    room = Room(models, dict.fromkeys(models, 1.0), budget)
    start_time = time.process_time()
    result = schedule(jobs, room)
    assert time.process_time() - start_time < 2  # 0.4 on a quiet core
    assert_valid(jobs, room, result)
    assert result.seconds <= least_recently_used(jobs, room).seconds


@pytest.mark.parametrize(("large", "budget", "loads"), [(20, 40, 1 + 20), (1, 20, 1 + 21)])
def test_many_small_models_leave_no_endless_choice_of_whom_to_evict(large: int, budget: int, loads: int) -> None:
    small = [f"m{number}" for number in range(40)]  # 137,846,528,820 ways to evict half of them
    room = Room({**dict.fromkeys(small, 1), "x": large}, dict.fromkeys([*small, "x"], 1.0), budget, tuple(small))
    jobs = [Job("x", "x"), *(Job(name, name, frozenset({"x"})) for name in small)]
    result = schedule(jobs, room)
    assert_valid(jobs, room, result)
    assert result.loads == loads
