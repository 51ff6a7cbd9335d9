"""A bound on the processor time of a stranger's code that runs in our own process."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import NoReturn


class OutOfTimeError(Exception):
    """The code took all the time it was given."""


class _Ended(BaseException):
    """Passes through what catches every `Exception`, as jinja2 does where it computes constants."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `OutOfTimeError` inside the block once this process has computed for so long.

    It is processor time, so that a busy machine does not decide what is refused. Only the main thread can be bounded:
    there Python hears signals. Elsewhere, and where the system has no such timer, the block runs as it is.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ended(*_: object) -> NoReturn:
        raise _Ended

    before = signal.signal(signal.SIGVTALRM, ended)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except _Ended:
        raise OutOfTimeError(f"it takes more than {seconds:g} seconds") from None
    finally:
        signal.signal(signal.SIGVTALRM, before)
