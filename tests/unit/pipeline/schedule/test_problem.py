"""The states between loads."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from agentlab.pipeline.schedule.problem import Move, State, bits, problem_of
from agentlab.pipeline.schedule.types import Job, Room
from tests.unit.pipeline.schedule.conftest import jobs_of, problems, room_of


def test_all_that_needs_no_load_is_done_at_once_and_a_model_without_work_is_forgotten() -> None:
    problem = problem_of(jobs_of("x:a y:b<x z:a<y end:c<z"), room_of(budget=2))
    assert problem.start(0b01) == State(done=0b001, resident=0b01, ready=(1,))
    assert problem.start(0b11) == State(done=0b111, resident=0, ready=(3,))


@given(problems(jobs=30, models=5), st.lists(st.integers(0, 99), max_size=20))
def test_what_is_ready_is_carried_along_as_it_would_be_found_among_all_units(
    jobs_and_room: tuple[list[Job], Room], picks: list[int]
) -> None:
    problem = problem_of(*jobs_and_room)
    state = problem.start(0)
    for pick in picks:
        ready_units = [unit for unit in bits(problem.end.done & ~state.done) if not problem.needs[unit] & ~state.done]
        assert state.ready == tuple(ready_units)
        wanted_models = problem.wanted_models(state)
        if wanted_models:
            state = problem.after(state, Move(state.resident, wanted_models[pick % len(wanted_models)]))


def test_only_models_with_a_unit_ready_are_wanted_in_the_order_of_the_list() -> None:
    problem = problem_of(jobs_of("x:b y:a z:c<x w:b<y"), room_of(budget=2))
    assert [problem.models[model] for model in problem.wanted_models(problem.start(0))] == ["b", "a"]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.integers(1, 9), st.integers(0, 20))
def test_evictions_are_all_sets_that_make_room_and_have_none_to_spare(sizes: list[int], size: int, spare: int) -> None:
    names = [f"m{number}" for number in range(len(sizes))]
    budget = max(*sizes, size, spare)
    room = Room({**dict(zip(names, sizes, strict=True)), "new": size}, dict.fromkeys([*names, "new"], 1.0), budget)
    problem = problem_of(jobs_of(" ".join(f"{name}:{name}" for name in [*names, "new"])), room)
    new = len(sizes)

    def enough(chosen: tuple[int, ...]) -> bool:
        return sum(sizes) - sum(sizes[number] for number in chosen) + size <= budget

    expected = {
        chosen
        for count in range(len(sizes) + 1)
        for chosen in combinations(range(len(sizes)), count)
        if enough(chosen) and not any(enough(tuple(x for x in chosen if x != omitted)) for omitted in chosen)
    }
    evictions = [tuple(bits(evict)) for evict in problem.evictions(State(0, (1 << new) - 1, ()), new)]
    assert sorted(evictions) == sorted(expected)


@given(st.sets(st.integers(0, 300)))
def test_bits_are_the_numbers_of_a_mask_in_order(numbers: set[int]) -> None:
    assert list(bits(sum(1 << number for number in numbers))) == sorted(numbers)
