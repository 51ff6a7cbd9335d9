"""A time limit that is cheap to move: one timer for many waits, which looks at the limit only when it rings.

`asyncio.timeout` makes and cancels a timer for each wait, which for an answer of a hundred pieces costs as much as
taking the pieces apart.
"""

import asyncio
from types import TracebackType


class Clock:
    """Bounds one wait after another: `with clock.until(when): await ...`. Each may be in another task."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._rings = self._limit = 0.0
        self._waiting: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._late = False

    def until(self, when: float) -> "Clock":
        """Let the next wait end at `when`, in the loop's time."""
        self._limit = when
        if self._timer is None or when < self._rings:
            self.stop()
            self._rings = when
            self._timer = self._loop.call_at(when, self._ring)
        return self

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._waiting, self._cancelling, self._late = task, task.cancelling(), False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise TimeoutError in place of the cancellation that came from here; any other goes on."""
        task, self._waiting = self._waiting, None
        if not self._late or task is None:
            return
        if task.uncancel() <= self._cancelling and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error

    def _ring(self) -> None:
        self._timer = None
        if self._waiting is None:
            return  # the next wait winds it up again
        if self._loop.time() < self._limit:
            self.until(self._limit)
        else:
            self._late = True
            self._waiting.cancel()
