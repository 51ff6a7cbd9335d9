"""What went wrong in a worker that ran llama.cpp, in words, and whether it was for want of memory."""

import re
import signal

from agentlab.errors import AgentlabError, ModelFileError, WorkerDiedError
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
# How the system, C++, Python, ggml and its CUDA part say it.
_MEMORY = re.compile(
    r"cannot allocate memory|can't allocate memory|unable to allocate|failed to allocate|insufficient memory"
    r"|not enough memory|out of memory|address[ -]space|bad_alloc|MemoryError|ErrorMemoryAllocation",
    re.IGNORECASE,
)
_KILLED_LOADING = re.compile(r"died while it loaded the model: .*\((SIGKILL|SIGABRT)\)")


def describe(status: int) -> tuple[str, str | None]:
    """(cause, hint); see `workers.deaths.describe`."""
    return deaths.describe(status, _CAUSES)


def out_of_memory(error: AgentlabError) -> bool:
    """Whether an engine's error came of too little main or GPU memory, so that a smaller engine may do.

    It goes by the text, which ends with the last words of llama.cpp, and takes a worker that was killed or aborted
    while it loaded for one that ran out. One that was killed later is not: anybody may have done that.
    """
    if not isinstance(error, (ModelFileError, WorkerDiedError)):
        return False
    return bool(_MEMORY.search(error.message) or _KILLED_LOADING.search(error.message))
