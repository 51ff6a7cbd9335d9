"""The request to stop: set by a signal handler at the edge, asked by every loop between two steps."""

from agentlab.errors import Interrupted


class StopFlag:
    """One per process. A loop calls `check` where it can safely stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def request(self, signal: int) -> None:
        self.signal = signal

    @property
    def is_requested(self) -> bool:
        return self.signal is not None

    def poll(self) -> bool:
        """False, for who waits and asks again and again; see `check`."""
        self.check()
        return False

    def check(self) -> None:
        """Raise Interrupted, with the exit code that the shell has for the signal, if somebody called `request`."""
        if self.signal is not None:
            raise Interrupted("Stopped on request.", signal=self.signal)
