"""What the exit status of a worker that ran llama.cpp means, in words."""

import signal

from agentlab.workers import deaths

_LESS = "Use a smaller context (`context`), a smaller model, or close other programs."
_REBUILD = "Rebuild it here: `pip install --force-reinstall --no-binary llama-cpp-python llama-cpp-python`."

_CAUSES: deaths.Causes = {
    signal.SIGABRT: ("a check inside llama.cpp failed, most often for want of memory", _LESS),
    signal.SIGSEGV: ("llama.cpp crashed", None),
    signal.SIGBUS: ("the model file changed or became unreadable while it was in use", None),
    signal.SIGILL: ("llama.cpp was built for another processor", _REBUILD),
    signal.SIGFPE: ("llama.cpp crashed in its arithmetic", None),
    signal.SIGKILL: ("it was killed, most likely by the system for want of memory", _LESS),
    signal.SIGTERM: ("somebody stopped it", None),
}


def describe(status: int) -> tuple[str, str | None]:
    """(cause, hint); see `workers.deaths.describe`."""
    return deaths.describe(status, _CAUSES)
