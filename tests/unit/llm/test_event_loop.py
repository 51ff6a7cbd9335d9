"""Where requests are sent from: who may ask from where, and what is said to those who may not."""

import asyncio

import pytest

from agentlab.errors import UsageError
from agentlab.llm.event_loop import CallersLoop, LoopThread


async def answer():
    await asyncio.sleep(0)
    return 42


async def release():
    pass


def test_a_router_of_one_loop_refuses_another():
    home = CallersLoop()
    assert asyncio.run(home.run(answer())) == 42
    with pytest.raises(UsageError, match="a different loop") as caught:
        asyncio.run(home.run(answer()))
    assert "in_callers_loop" in caught.value.hint
    with pytest.raises(UsageError):
        asyncio.run(home.aclose(release))


def test_a_router_of_one_loop_is_closed_in_it_and_twice():
    async def use():
        home = CallersLoop()
        await home.run(answer())
        await home.aclose(release)
        await home.aclose(release)

    asyncio.run(use())


def test_a_thread_does_not_wait_for_itself():
    home = LoopThread()

    async def asks_while_it_runs():
        with pytest.raises(UsageError, match="cannot be called while"):
            home.submit(answer())
        return await home.run(answer())  # waiting without holding up the thread is well

    assert home.submit(asks_while_it_runs()).result(5) == 42
    assert asyncio.run(home.run(answer())) == 42
    home.close(release)
