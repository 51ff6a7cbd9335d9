"""Slots: first come, first served; the limit holds whatever is cancelled, and no slot is lost."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.llm.guard import Slots


@asynccontextmanager
async def held(slots: Slots) -> AsyncIterator[None]:
    await slots.take()
    try:
        yield
    finally:
        slots.free()


async def settle() -> None:
    """Let everything that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


class Caller:
    """Holds a slot until it is told to leave."""

    def __init__(self, slots: Slots, log: list[str], name: str) -> None:
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._run(slots, log, name))

    async def _run(self, slots: Slots, log: list[str], name: str) -> None:
        async with held(slots):
            log.append(name)
            await self.leave.wait()


def test_first_come_first_served():
    async def scene() -> list[str]:
        slots, log = Slots(1), []
        callers = [Caller(slots, log, name) for name in "abcd"]
        await settle()
        assert (slots.in_use, len(slots.waiting)) == (1, 3)
        for caller in callers:
            caller.leave.set()
            await settle()
        assert (slots.in_use, len(slots.waiting)) == (0, 0)
        return log

    assert asyncio.run(scene()) == list("abcd")


def test_a_higher_limit_lets_waiting_calls_in_and_a_lower_one_holds_when_enough_have_left():
    async def scene() -> None:
        slots, log = Slots(1), []
        callers = [Caller(slots, log, name) for name in "abcde"]
        await settle()
        slots.limit = 3
        await settle()
        assert log == list("abc")
        slots.limit = 1
        assert slots.in_use == 3
        callers[0].leave.set()
        callers[1].leave.set()
        await settle()
        assert (slots.in_use, log) == (1, list("abc"))
        callers[2].leave.set()
        await settle()
        assert (slots.in_use, log) == (1, list("abcd"))
        callers[3].leave.set()
        callers[4].leave.set()
        await settle()
        assert slots.in_use == 0

    asyncio.run(scene())


def test_a_slot_that_arrives_together_with_the_cancellation_goes_to_the_next():
    async def scene() -> None:
        slots, log = Slots(1), []
        first, second, third = (Caller(slots, log, name) for name in "abc")
        await settle()
        slots.limit = 2  # hands a slot to the second, which has not run yet
        second.task.cancel()
        await settle()
        assert second.task.cancelled()
        assert (slots.in_use, len(slots.waiting), log) == (2, 0, ["a", "c"])
        first.leave.set()
        third.leave.set()
        await settle()
        assert slots.in_use == 0

    asyncio.run(scene())


def test_who_gave_up_waiting_keeps_nobody_else_waiting():
    async def scene() -> None:
        slots, log = Slots(1), []
        first, second = Caller(slots, log, "a"), Caller(slots, log, "b")
        await settle()
        second.task.cancel()
        first.leave.set()  # in the same turn
        third = Caller(slots, log, "c")
        await settle()
        assert log == ["a", "c"]
        third.leave.set()
        await settle()
        assert (slots.in_use, len(slots.waiting)) == (0, 0)

    asyncio.run(scene())


def test_an_error_in_the_block_frees_the_slot():
    async def scene() -> None:
        slots = Slots(1)
        with pytest.raises(ZeroDivisionError):
            async with held(slots):
                raise ZeroDivisionError
        assert slots.in_use == 0

    asyncio.run(scene())


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_the_limit_holds_under_random_cancelling_and_no_slot_is_lost(seed, limit):
    rng = random.Random(seed)

    async def scene() -> None:
        slots, inside, most = Slots(limit), 0, limit

        async def work() -> None:
            nonlocal inside
            async with held(slots):
                inside += 1
                assert inside <= most
                try:
                    for _ in range(rng.randrange(4)):
                        await asyncio.sleep(0)
                finally:
                    inside -= 1

        tasks = []
        for _ in range(60):
            tasks.append(asyncio.create_task(work()))
            if rng.random() < 0.4:
                rng.choice(tasks).cancel()
            if rng.random() < 0.1:
                slots.limit = rng.randint(1, limit)  # never above the first: `most` stays the bound
            if rng.random() < 0.5:
                await asyncio.sleep(0)
            assert slots.in_use <= most
        async with asyncio.timeout(5):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
        assert (slots.in_use, len(slots.waiting)) == (0, 0)

    asyncio.run(scene())
