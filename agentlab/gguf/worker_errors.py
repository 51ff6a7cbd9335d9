"""What went wrong in a worker that ran llama.cpp, in words, and what it was for want of."""

import re
import signal

from agentlab.errors import AgentlabError, ModelFileError, WorkerDiedError
from agentlab.workers import exit_status

# Without `native` no instruction is used that only this processor's family has: AMX and AVX512 among them. pip keeps
# built wheels without regard to CMAKE_ARGS, so the cache is passed by.
REBUILD = (
    "CMAKE_ARGS=-DGGML_NATIVE=off pip install --force-reinstall --no-cache-dir --no-deps "
    "--no-binary llama-cpp-python llama-cpp-python"
)
_LESS = "Use a smaller context (`context`) or a smaller model, or close other programs."
_DOCTOR = f"Run `agentlab doctor` to test the engine alone. If that fails too, rebuild it for any processor: {REBUILD}"
_FILE = "Do not change the file while it is in use; `agentlab models list` shows where it is."

CAUSES: exit_status.Causes = {
    signal.SIGABRT: ("a check inside llama.cpp failed, usually for lack of memory", _LESS),
    signal.SIGSEGV: ("llama.cpp crashed", _DOCTOR),
    signal.SIGBUS: ("the model file changed or became unreadable while it was in use", _FILE),
    signal.SIGILL: ("llama.cpp was built for another processor, or was miscompiled for this one", _DOCTOR),
    signal.SIGFPE: ("llama.cpp crashed in an arithmetic operation", _DOCTOR),
    signal.SIGKILL: ("it was killed, most likely by the system for lack of memory", _LESS),
    signal.SIGTERM: ("it was stopped from outside", "Try again: the next call starts a new process."),
}
_FAULTS = {signal.SIGILL, signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT}
_FAULTY = re.compile(rf"died.*: .*\(({'|'.join(sorted(fault.name for fault in _FAULTS))})\)")
# How the system, C++, Python, ggml and its CUDA part say it.
_MEMORY = re.compile(
    r"cannot allocate memory|can't allocate memory|unable to allocate|failed to allocate|insufficient memory"
    r"|not enough memory|out of memory|address[ -]space|bad_alloc|MemoryError|ErrorMemoryAllocation",
    re.IGNORECASE,
)
_KILLED_LOADING = re.compile(r"died while it loaded the model: .*\((SIGKILL|SIGABRT)\)")


def fault(status: int, log: str) -> str | None:
    """The signal's name where the library itself is at fault: not for want of memory, nor by somebody's hand."""
    number = -status if status < 0 else status - 128
    return signal.Signals(number).name if number in _FAULTS and not _MEMORY.search(log) else None


def at_fault(error: AgentlabError) -> bool:
    """Whether an engine's error is a death of which `fault` knows the signal."""
    message = error.message if isinstance(error, WorkerDiedError) else ""
    return bool(_FAULTY.search(message)) and not _MEMORY.search(message.partition("\n")[2])


def out_of_memory(error: AgentlabError) -> bool:
    """Whether an engine's error came of too little main or GPU memory, so that a smaller engine may do.

    It goes by the text, which ends with the last words of llama.cpp, and takes a worker that was killed or aborted
    while it loaded for one that ran out. One that was killed later is not: anybody may have done that.
    """
    if not isinstance(error, (ModelFileError, WorkerDiedError)):
        return False
    return bool(_MEMORY.search(error.message) or _KILLED_LOADING.search(error.message))
