"""How requests are sent, in virtual time: every figure is exact."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from agentlab.bench.load.records import Record
from agentlab.bench.load.schedule import LoadStage, offsets
from agentlab.bench.load.sending import Bounds, StageOutcome, run_stage
from agentlab.errors import BudgetExceededError, Interrupted
from agentlab.llm.types import Delta


def stage(arrivals: Any = "closed", value: float = 2, requests: int = 6) -> LoadStage:
    return LoadStage("s", "model", arrivals, value, requests, seed=1)


def carry_out(
    virtually: Callable[..., Any],
    ask: Callable[[int], AsyncIterator[Delta]],
    the_stage: LoadStage,
    *,
    seconds: float = 100.0,
    request: float = 50.0,
    watch: Any = lambda _readings, _now: None,
) -> StageOutcome:
    async def work() -> StageOutcome:
        clock = asyncio.get_running_loop().time
        return await run_stage(the_stage, ask, Bounds(seconds, request), watch, clock)

    outcome: StageOutcome = virtually(work())
    return outcome


def test_so_many_at_a_time_and_the_next_when_one_is_answered(
    virtually: Callable[..., Any], speak: Callable[..., AsyncIterator[Delta]]
) -> None:
    outcome = carry_out(virtually, lambda _: speak(1.0, 0.5, 3), stage(value=2, requests=6))
    assert [reading.sent for reading in outcome.readings] == pytest.approx([0, 0, 2, 2, 4, 4])
    assert all(reading.is_answered and reading.scheduled == reading.sent for reading in outcome.readings)
    assert outcome.ended == "whole"


@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
def test_an_open_loop_sends_at_its_times_whatever_the_answers_do(
    virtually: Callable[..., Any], speak: Callable[..., AsyncIterator[Delta]], arrivals: str
) -> None:
    the_stage = stage(arrivals, value=4, requests=10)
    outcome = carry_out(virtually, lambda _: speak(30.0, 0.0, 1), the_stage)
    assert [reading.sent for reading in outcome.readings] == pytest.approx(list(offsets(the_stage)))
    assert all(reading.stamps[0] == pytest.approx(reading.scheduled + 30) for reading in outcome.readings)


def test_a_client_that_is_late_keeps_the_scheduled_times(
    virtually: Callable[..., Any], speak: Callable[..., AsyncIterator[Delta]]
) -> None:
    async def work() -> StageOutcome:
        loop = asyncio.get_running_loop()
        jumped = loop.time

        def clock() -> float:  # for this client a second passes between the schedule and the send
            return jumped() + 1.0 * (jumped() > 0.2)

        watch = lambda _readings, _now: None  # noqa: E731 - nobody watches
        return await run_stage(stage("constant", 4, 3), lambda _: speak(0.1, 0.0, 1), Bounds(100.0, 50.0), watch, clock)

    readings = virtually(work()).readings
    assert [reading.scheduled for reading in readings] == [0.0, 0.25, 0.5]
    assert max(reading.sent - reading.scheduled for reading in readings) == pytest.approx(1.0, abs=0.01)


def test_a_stage_keeps_its_time_and_says_what_was_open(
    virtually: Callable[..., Any], speak: Callable[..., AsyncIterator[Delta]]
) -> None:
    outcome = carry_out(virtually, lambda _: speak(60.0, 0.0, 1), stage("constant", 1, 100), seconds=20)
    assert outcome.ended == "time"
    assert outcome.seconds == pytest.approx(20, abs=0.5)
    assert max(reading.sent for reading in outcome.readings) < 17  # the rest of the time is for what is still open
    assert all(reading.ended is None for reading in outcome.readings)


def test_a_request_has_a_total_time(virtually: Callable[..., Any], speak: Callable[..., AsyncIterator[Delta]]) -> None:
    outcome = carry_out(virtually, lambda _: speak(9.0, 0.0, 1), stage(requests=2), request=3.0)
    assert [reading.error for reading in outcome.readings] == ["LLMTimeoutError"] * 2
    assert [reading.ended for reading in outcome.readings] == pytest.approx([3.0, 3.0])


def test_whoever_watches_can_end_a_stage_or_give_it_up(
    virtually: Callable[..., Any], speak: Callable[..., AsyncIterator[Delta]]
) -> None:
    def enough(readings: Sequence[Record], _now: float) -> str | None:
        return "saturated" if len(readings) > 4 else None

    outcome = carry_out(virtually, lambda _: speak(1.0, 0.0, 1), stage(requests=1000), watch=enough)
    assert (outcome.ended, len(outcome.readings) < 20) == ("saturated", True)

    def stop(_readings: Sequence[Record], _now: float) -> str | None:
        raise Interrupted("Stopped on request.")

    with pytest.raises(Interrupted):
        carry_out(virtually, lambda _: speak(1.0, 0.0, 1), stage(), watch=stop)


async def _too_dear() -> AsyncIterator[Delta]:
    raise BudgetExceededError("The next call would cost too much.")
    yield Delta()


def test_a_budget_ends_a_stage_and_its_readings_are_kept(
    virtually: Callable[..., Any], speak: Callable[..., AsyncIterator[Delta]]
) -> None:
    def ask(index: int) -> AsyncIterator[Delta]:
        return speak(1.0, 0.0, 1) if index < 3 else _too_dear()

    outcome = carry_out(virtually, ask, stage(value=1, requests=9))
    assert outcome.ended == "budget"
    assert isinstance(outcome.error, BudgetExceededError)
    assert [reading.is_answered for reading in outcome.readings] == [True, True, True]


def test_a_bug_of_the_client_is_raised(virtually: Callable[..., Any]) -> None:
    def ask(_: int) -> AsyncIterator[Delta]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        carry_out(virtually, ask, stage())
