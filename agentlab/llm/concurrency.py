"""Many calls at a time, but not too many, and none that outlives a request to stop."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from agentlab.runs.stop import StopFlag

T = TypeVar("T")

_POLL_SECONDS = 0.2


async def all_of(jobs: Sequence[Callable[[], Awaitable[T]]], limit: int, stop: StopFlag) -> list[T]:
    """The results of all jobs in their order, at most `limit` of them at work at a time.

    Raises:
        Interrupted: a stop was requested; what is at work is cancelled within a fraction of a second.
        Exception: the first that a job raised; the others are cancelled.
    """
    slots = asyncio.Semaphore(limit)

    async def one(job: Callable[[], Awaitable[T]]) -> T:
        async with slots:
            stop.check()
            return await job()

    tasks = [asyncio.ensure_future(one(job)) for job in jobs]
    pending = set(tasks)
    try:
        while pending:
            stop.check()
            done, pending = await asyncio.wait(pending, timeout=_POLL_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        return [task.result() for task in tasks]
    finally:
        await give_up(*tasks)


async def give_up(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel what still runs, and wait until it has closed its connections."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
