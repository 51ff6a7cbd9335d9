"""Where a router's requests are sent from: a loop in a thread of its own, or the loop of its caller.

Connections belong to the loop in which they were opened, so one router lives in one loop.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from agentlab.errors import LLMCancelledError, UsageError
from agentlab.llm.concurrency import give_up
from agentlab.llm.question import Sink
from agentlab.llm.types import Completion, Delta

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
                "A language model cannot be called while another model's answer is being checked.",
                hint="Call it before or after, or use `await router.complete(...)` in a coroutine.",
            )
        return self._send(coroutine)

    def _send(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        with self._lock:
            if self._closed:
                coroutine.close()
                raise LLMCancelledError(_CLOSED)
            if self._loop is None:
                loop = self._loop = asyncio.new_event_loop()
                # a daemon: a process that is told to leave at once must not wait for a language model
                self._thread = threading.Thread(target=self._serve, args=(loop,), name="agentlab-llm", daemon=True)
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
        """Cancel what runs, await `release`, and end the thread, within 5 seconds."""
        with self._lock:
            closed, self._closed = self._closed, True
            loop, thread = self._loop, self._thread
        if closed or loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._wind_down(release), loop)
        thread.join(_CLOSE_SECONDS)

    async def aclose(self, release: Release) -> None:
        await asyncio.to_thread(self.close, release)

    @staticmethod
    async def _wind_down(release: Release) -> None:
        try:
            running = asyncio.all_tasks() - {asyncio.current_task()}
            await give_up(*running)
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
        """Raises UsageError always: there is no loop to submit to."""
        coroutine.close()
        raise UsageError(
            "This router runs in its caller's event loop.", hint="Use `await router.complete(...)` and `aclose`."
        )

    def close(self, release: Release) -> None:  # noqa: ARG002 - as of `LoopThread`
        """Raises UsageError unless `aclose` was called: closing needs the loop."""
        if not self._closed:
            raise UsageError("This router runs in its caller's event loop.", hint="Use `await router.aclose()`.")

    def _check(self) -> None:
        current_loop = asyncio.get_running_loop()
        self._loop = self._loop or current_loop
        if self._loop is not current_loop:
            raise UsageError(
                "This router belongs to the event loop in which it was first used; this is a different loop.",
                hint="Create one router for each loop, or leave out `in_callers_loop` so that any loop can use it.",
            )

    async def aclose(self, release: Release) -> None:
        """Cancel what runs and await `release`. Raises UsageError in another loop than that of the calls."""
        if self._closed:
            return
        self._check()
        self._closed = True
        await give_up(*self._running)
        await release()


class Live:
    """`async for delta in live`, once; then `live.completion` tells the rest. Leaving early gives the call up.

    Until the first piece, a failing model is replaced unseen. After it the loop raises: `LLMTruncatedError` when the
    stream broke. It never ends as if an answer were complete that is not.
    """

    def __init__(self, ask: Callable[[Sink], Awaitable[Completion[str]]]) -> None:
        """`ask` puts the question; its sink may be called from another thread."""
        self._ask = ask
        self._completion: Completion[str] | None = None
        self.model = ""  # whose answer it is; known from the first piece on

    @property
    def completion(self) -> Completion[str]:
        """The whole answer, who gave it, and what it took. Raises RuntimeError while it is not over."""
        if self._completion is None:
            raise RuntimeError("the answer is not complete; read the stream to its end first")
        return self._completion

    async def __aiter__(self) -> AsyncGenerator[Delta, None]:
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Delta | None]()

        def sink(model: str, delta: Delta) -> None:
            self.model = model
            try:
                in_loop = asyncio.get_running_loop() is loop
            except RuntimeError:
                in_loop = False
            if in_loop:
                pieces.put_nowait(delta)
            else:
                loop.call_soon_threadsafe(pieces.put_nowait, delta)

        task = asyncio.ensure_future(self._ask(sink))
        task.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (delta := await pieces.get()) is not None:
                yield delta
            self._completion = await task
        finally:
            await give_up(task)
