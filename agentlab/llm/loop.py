"""Where a router's requests are sent from: a loop in a thread of its own, or the loop of its caller.

Connections belong to the loop in which they were opened, so one router lives in one loop.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from agentlab.errors import LLMCancelledError, UsageError

T = TypeVar("T")
Release = Callable[[], Awaitable[None]]

_CLOSE_SECONDS = 5.0
_CLOSED = "The router is closed."


class LoopThread:
    """A loop in a thread of its own: starts with the first coroutine and runs until `close`. Anybody may use it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: a signal handler may close what its thread is using
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there, and wait here. Who waits may be in any loop."""
        return await asyncio.wrap_future(self._send(coroutine))

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine there. Cancelling the future cancels it.

        Raises:
            LLMCancelledError: the loop was closed.
            UsageError: it is called within the thread, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise UsageError(
                "A language model cannot be waited for while the answer of another one is being checked.",
                hint="Ask before or after, or use `await router.complete(...)` in a coroutine.",
            )
        return self._send(coroutine)

    def _send(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        with self._lock:
            if self._closed:
                coroutine.close()
                raise LLMCancelledError(_CLOSED)
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

    def close(self, release: Release) -> None:
        """Cancel what runs, await `release`, and end the thread, within 5 seconds. Safe to call twice."""
        with self._lock:
            closed, self._closed = self._closed, True
            loop, thread = self._loop, self._thread
        if closed or loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._wind_down(release), loop)
        thread.join(_CLOSE_SECONDS)

    async def aclose(self, release: Release) -> None:
        """`close`, without holding up the caller's loop."""
        await asyncio.to_thread(self.close, release)

    @staticmethod
    async def _wind_down(release: Release) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        try:
            await asyncio.gather(*running, return_exceptions=True)
            await release()
        finally:
            asyncio.get_running_loop().stop()


class CallersLoop:
    """The loop of whoever asks: no thread to cross, for programs that have one loop and many calls."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None  # the one that it was first used in
        self._closed = False

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine as a task of the running loop.

        Raises:
            LLMCancelledError: it was closed.
            UsageError: this is another loop than before.
        """
        try:
            if self._closed:
                raise LLMCancelledError(_CLOSED)
            self._check()
        except BaseException:
            coroutine.close()
            raise
        task = asyncio.ensure_future(coroutine)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await task

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """There is no loop to submit to.

        Raises:
            UsageError: always.
        """
        coroutine.close()
        raise UsageError(
            "This router lives in the loop of its caller.", hint="Use `await router.complete(...)` and `aclose`."
        )

    def close(self, release: Release) -> None:  # noqa: ARG002 - as of `LoopThread`
        """As `submit`: closing needs the loop.

        Raises:
            UsageError: `aclose` was not called.
        """
        if not self._closed:
            raise UsageError("This router lives in the loop of its caller.", hint="Use `await router.aclose()`.")

    def _check(self) -> None:
        here = asyncio.get_running_loop()
        self._loop = self._loop or here
        if self._loop is not here:
            raise UsageError(
                "This router lives in the loop in which it was first used, and this is another one.",
                hint="Make one router in each loop, or leave out `in_callers_loop`: then any loop may use it.",
            )

    async def aclose(self, release: Release) -> None:
        """Cancel what runs and await `release`. Safe to call twice.

        Raises:
            UsageError: this is another loop than that of the calls, whose connections end with theirs.
        """
        if self._closed:
            return
        self._check()
        self._closed = True
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await release()
