"""One event loop in a thread of its own: connections are pooled there, whoever calls and from whichever thread."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from agentlab.errors import LLMCancelledError

T = TypeVar("T")

_CLOSE_SECONDS = 5.0


class LoopThread:
    """Starts with the first coroutine and runs until `close`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: a signal handler may close what its thread is using
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine there. Cancelling the future cancels it.

        Raises:
            LLMCancelledError: the loop was closed.
        """
        with self._lock:
            if self._closed:
                coroutine.close()
                raise LLMCancelledError("The router is closed.")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # a daemon: a process that is told to leave at once must not wait for a language model
                self._thread = threading.Thread(
                    target=self._serve, args=(self._loop,), name="agentlab-llm", daemon=True
                )
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def close(self, release: Callable[[], Awaitable[None]]) -> None:
        """Cancel what runs, await `release`, and end the thread, within 5 seconds. Safe to call twice."""
        with self._lock:
            closed, self._closed = self._closed, True
            loop, thread = self._loop, self._thread
        if closed or loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._wind_down(release), loop)
        thread.join(_CLOSE_SECONDS)

    @staticmethod
    async def _wind_down(release: Callable[[], Awaitable[None]]) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        try:
            await asyncio.gather(*running, return_exceptions=True)
            await release()
        finally:
            asyncio.get_running_loop().stop()
