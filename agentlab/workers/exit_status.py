"""What the exit status of a worker means, in words."""

import signal
from collections.abc import Mapping

_LOG_LINES, _LOG_WIDTH = 12, 200

Causes = Mapping[int, tuple[str, str | None]]  # number of a signal -> (cause, hint)

_CAUSES: Causes = {
    signal.SIGABRT: ("a check inside a library failed, usually for lack of memory", None),
    signal.SIGSEGV: ("a library crashed", None),
    signal.SIGBUS: ("a file changed or became unreadable while it was in use", None),
    signal.SIGILL: ("a library was built for another processor", None),
    signal.SIGFPE: ("a library crashed in an arithmetic operation", None),
    signal.SIGKILL: ("it was killed, most likely by the system for lack of memory", None),
    signal.SIGTERM: ("it was stopped from outside", None),
}


def describe(status: int, causes: Causes = _CAUSES) -> tuple[str, str | None]:
    """(cause, hint) for the exit status of a worker that ended by itself.

    `status`: as `subprocess` reports it, -N for signal N, or as a shell does, 128 + N; `causes`: what signals mean in a
    worker whose libraries are known.
    """
    number = -status if status < 0 else status - 128
    if number in causes:
        cause, hint = causes[number]
        return f"{cause} ({signal.Signals(number).name})", hint
    if status == 0:
        return "it exited without a message", None
    return f"it exited with status {status}", "`agentlab doctor` checks the installation."


def last_words(log: str) -> str:
    """The end of what a worker printed, short enough for an error or an event."""
    return "\n".join(line[:_LOG_WIDTH] for line in log.splitlines()[-_LOG_LINES:])
