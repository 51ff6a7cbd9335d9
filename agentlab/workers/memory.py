"""What a process takes, and a bound on it, so that want of memory is an error where it happens and not a death."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# How libraries say it that do not raise MemoryError: torch's allocator, C++, the system.
_MARKS = ("can't allocate memory", "bad_alloc", "Cannot allocate memory", "Failed to allocate a Tensor")


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Bytes of a running process: in memory now, of these private (not mapped from a file), and the most ever."""

    resident: int
    private: int
    peak: int


def of(pid: int) -> ProcessMemory | None:
    """What a process takes; None when it is gone, and where the system does not say (not Linux)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    fields = (line.partition(":") for line in status.splitlines())
    kib = {name: int(amount.split()[0]) for name, _, amount in fields if name in ("VmRSS", "RssAnon", "VmHWM")}
    if len(kib) < 3:  # it has ended, and nobody waited for it
        return None
    return ProcessMemory(resident=kib["VmRSS"] << 10, private=kib["RssAnon"] << 10, peak=kib["VmHWM"] << 10)


def mapped_bytes() -> int | None:
    """Bytes of private writable memory this process has mapped; None where it cannot be bounded (not Linux)."""
    if sys.platform != "linux":
        return None
    import resource

    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


def bound_memory(headroom: int | None) -> None:
    """Let `mapped_bytes` not grow by more than `headroom` bytes from now on; None does not bound it.

    RLIMIT_DATA counts heap, private mappings and thread stacks since Linux 4.7, but not files and not address space
    that is only reserved. A lower limit that was there stays in force.
    """
    now = mapped_bytes()
    if headroom is None or now is None:
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    ceiling = now + headroom
    resource.setrlimit(resource.RLIMIT_DATA, (ceiling if soft == resource.RLIM_INFINITY else min(soft, ceiling), hard))


@contextlib.contextmanager
def at_most(ceiling: int | None) -> Iterator[None]:
    """Let `mapped_bytes` not grow beyond `ceiling` bytes in the block; None does not bound it. See `bound_memory`."""
    now = mapped_bytes()
    if ceiling is None or now is None:
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    bound_memory(ceiling - now)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def ran_out(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that no memory was left."""
    while error is not None:
        # The interpreter itself may fail to make a MemoryError; then it raises SystemError.
        if isinstance(error, (MemoryError, SystemError)) or any(mark in str(error) for mark in _MARKS):
            return True
        error = error.__cause__ or error.__context__
    return False
