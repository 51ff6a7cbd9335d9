"""Many calls at a time, but not too many, and none that outlives a stop or a failure."""

import asyncio
import time
from functools import partial

import pytest

from agentlab.errors import Interrupted
from agentlab.llm.concurrency import all_of
from agentlab.runs.stop import StopFlag


def test_results_come_in_order_and_never_more_than_the_limit_at_once():
    peak = running = 0

    async def job(number: int) -> int:
        nonlocal peak, running
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.01 * (3 - number % 3))
        running -= 1
        return number

    assert asyncio.run(all_of([partial(job, n) for n in range(9)], 3, StopFlag())) == list(range(9))
    assert peak == 3


def test_nothing_to_do_is_done():
    assert asyncio.run(all_of([], 3, StopFlag())) == []


@pytest.mark.parametrize("stops", [True, False])
def test_a_stop_or_a_failure_cancels_what_is_at_work(stops):
    stop, cancelled = StopFlag(), []

    async def hang(number: int) -> None:
        if number == 2:
            if not stops:
                raise ValueError("broken")
            stop.request(2)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    began = time.perf_counter()
    with pytest.raises(Interrupted if stops else ValueError):
        asyncio.run(all_of([partial(hang, n) for n in range(5)], 3, stop))
    assert time.perf_counter() - began < 1
    assert set(cancelled) >= {0, 1}
    assert 4 not in cancelled  # it never began
