"""A mock server beside synchronous code."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from agentlab.bench.mock.server import MockServer


@contextmanager
def in_thread(*, seed: int = 0, port: int = 0) -> Iterator[MockServer]:
    """A server whose loop runs in a thread of this process."""
    server, loop = MockServer(seed=seed, port=port), asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with server:
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            loop.close()
            ready.set()

    thread = threading.Thread(target=run, name="agentlab-mock", daemon=True)
    thread.start()
    ready.wait(20.0)
    try:
        yield server
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join()
