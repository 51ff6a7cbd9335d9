"""A bound on what a process may allocate, so that want of memory is an error where it happens and not a death."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

# How libraries say it that do not raise MemoryError: torch's allocator, C++, the system.
_MARKS = ("can't allocate memory", "bad_alloc", "Cannot allocate memory", "Failed to allocate a Tensor")


def held() -> int | None:
    """Bytes of private writable memory this process has mapped; None where it cannot be bounded (not Linux)."""
    if sys.platform != "linux":
        return None
    import resource

    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


@contextlib.contextmanager
def at_most(ceiling: int | None) -> Iterator[None]:
    """Let `held` not grow beyond `ceiling` bytes inside the block; None does not bound it.

    RLIMIT_DATA counts heap, private mappings and thread stacks since Linux 4.7, but not files and not address space
    that is only reserved. A lower limit that was there stays in force.
    """
    if ceiling is None or sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (ceiling if soft == resource.RLIM_INFINITY else min(soft, ceiling), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def ran_out(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that no memory was left."""
    while error is not None:
        # The interpreter itself may fail to make a MemoryError; then it raises SystemError.
        if isinstance(error, (MemoryError, SystemError)) or any(mark in str(error) for mark in _MARKS):
            return True
        error = error.__cause__ or error.__context__
    return False
