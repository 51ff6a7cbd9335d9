"""The rule that schedules are compared with."""

from hypothesis import given

from agentlab.pipeline.schedule.plan import least_recently_used
from agentlab.pipeline.schedule.types import Job, Room
from tests.unit.pipeline.schedule.conftest import assert_valid, jobs_of, problems, room_of, words


@given(problems(jobs=30, models=7))
def test_it_keeps_the_rules(problem: tuple[list[Job], Room]) -> None:
    assert_valid(*problem, least_recently_used(*problem))


def test_jobs_run_as_listed_and_whoever_was_used_least_recently_goes() -> None:
    result = least_recently_used(jobs_of("1:a 2:b 3:a 4:c 5:b"), room_of(budget=2))
    assert words(result) == "+a 1 +b 2 3 -b +c 4 -a +b 5"
    assert result.method == "lru"


def test_as_many_go_as_the_next_one_needs() -> None:
    result = least_recently_used(jobs_of("1:a 2:b 3:c"), room_of(budget=3, sizes="a=1 b=1 c=3"))
    assert words(result) == "+a 1 +b 2 -a -b +c 3"


def test_models_resident_beforehand_are_the_oldest_first() -> None:
    assert words(least_recently_used(jobs_of("1:c"), room_of(budget=2, resident="b a"))) == "-b +c 1"
