"""The mock server beside synchronous code: in a thread, or in a process on a core of its own."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from agentlab.bench.mock.server import MockServer

_START_SECONDS = 20.0


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
    ready.wait(_START_SECONDS)
    try:
        yield server
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join()


@contextmanager
def in_process(*, seed: int = 0, core: int | None = None) -> Iterator[str]:
    """A server in a process of its own, bound to a core if one is named; its URL, with /v1. Ends with this process.

    Raises:
        RuntimeError: it did not start.
    """
    command = [sys.executable, "-m", "agentlab.bench.mock", f"--seed={seed}", "--until-eof"]
    command += [] if core is None else [f"--core={core}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the mock server did not start; its own message stands above")
            yield url
        finally:
            process.stdin.close()  # its sign to end
            process.wait(_START_SECONDS)
