"""What the exit status of a worker means, in words."""

import signal

_LESS = "Use a smaller context (`context`), a smaller model, or close other programs."
_REBUILD = "Rebuild it here: `pip install --force-reinstall --no-binary llama-cpp-python llama-cpp-python`."

_CAUSES: dict[int, tuple[str, str | None]] = {
    signal.SIGABRT: ("a check inside llama.cpp failed, most often for want of memory", _LESS),
    signal.SIGSEGV: ("llama.cpp crashed", None),
    signal.SIGBUS: ("the model file changed or became unreadable while it was in use", None),
    signal.SIGILL: ("llama.cpp was built for another processor", _REBUILD),
    signal.SIGFPE: ("llama.cpp crashed in its arithmetic", None),
    signal.SIGKILL: ("it was killed, most likely by the system for want of memory", _LESS),
    signal.SIGTERM: ("somebody stopped it", None),
}


def describe(status: int) -> tuple[str, str | None]:
    """(cause, hint) for the exit status of a worker that ended by itself.

    Args:
        status: as `subprocess` reports it, -N for signal N, or as a shell does, 128 + N.
    """
    number = -status if status < 0 else status - 128
    if number in _CAUSES:
        cause, hint = _CAUSES[number]
        return f"{cause} ({signal.Signals(number).name})", hint
    if status == 0:
        return "it ended without a word", None
    return f"it ended with status {status}", "`agentlab doctor` checks the installation."
