"""A limit on waiting: it ends the wait, and nothing else; a cancellation from outside stays one."""

import asyncio
import time

import pytest

from agentlab.llm.clock import Clock


def run(job):
    return asyncio.run(job())


def test_a_wait_ends_at_its_limit():
    async def what():
        clock = Clock()
        start = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError), clock.until(start + 0.05):
            await asyncio.sleep(5)
        await asyncio.sleep(0)  # the task is not cancelled
        return asyncio.get_running_loop().time() - start

    assert 0.05 <= run(what) < 1


def test_one_timer_serves_many_waits_and_each_has_its_own_limit():
    async def what():
        loop, clock = asyncio.get_running_loop(), Clock()
        start = loop.time()
        for _ in range(20):  # longer in all than any one may be
            with clock.until(loop.time() + 0.05):
                await asyncio.sleep(0.01)
        assert loop.time() - start > 0.15
        with pytest.raises(TimeoutError), clock.until(loop.time() + 0.02):
            await asyncio.sleep(5)
        return loop.time() - start

    assert run(what) < 1


def test_a_limit_may_come_closer():
    async def what():
        loop, clock = asyncio.get_running_loop(), Clock()
        with clock.until(loop.time() + 60):
            pass
        start = time.monotonic()
        with pytest.raises(TimeoutError), clock.until(loop.time() + 0.02):
            await asyncio.sleep(5)
        assert time.monotonic() - start < 1

    run(what)


def test_time_between_waits_does_not_count():
    async def what():
        loop, clock = asyncio.get_running_loop(), Clock()
        with clock.until(loop.time() + 0.02):
            pass
        await asyncio.sleep(0.05)
        with clock.until(loop.time() + 5):
            await asyncio.sleep(0)

    run(what)


def test_a_limit_that_is_over_already_ends_the_wait_at_once():
    async def what():
        loop, clock = asyncio.get_running_loop(), Clock()
        with pytest.raises(TimeoutError), clock.until(loop.time() - 1):
            await asyncio.sleep(5)

    run(what)


def test_a_cancellation_from_outside_goes_through():
    async def wait():
        with Clock().until(asyncio.get_running_loop().time() + 5):
            await asyncio.sleep(9)

    async def what():
        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(what)


def test_a_cancellation_at_the_same_moment_is_not_swallowed():
    async def wait(clock):
        with clock.until(asyncio.get_running_loop().time() + 0.01):
            await asyncio.sleep(9)

    async def what():
        task = asyncio.ensure_future(wait(Clock()))
        await asyncio.sleep(0)
        time.sleep(0.02)  # the timer is due, and will ring in the same turn of the loop as the cancellation
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    run(what)


def test_an_outer_timeout_keeps_its_own_word():
    async def wait():
        with Clock().until(asyncio.get_running_loop().time() + 5):
            await asyncio.sleep(9)

    async def what():
        task = asyncio.ensure_future(wait())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 0.02)
        assert task.cancelled()

    run(what)


def test_a_stopped_clock_leaves_no_timer():
    async def what():
        clock = Clock()
        with clock.until(asyncio.get_running_loop().time() + 60):
            pass
        clock.stop()
        return [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()]

    assert run(what) == []
