"""What a process takes, and a bound on what it may allocate."""

import os
import subprocess
import sys

import pytest

from agentlab.workers.memory import at_most, of, ran_out

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts mapped memory")


@linux
def test_what_is_held_grows_with_what_is_allocated() -> None:
    """In a process of its own: one that has freed much before takes a block from that."""
    code = (
        "from agentlab.workers.memory import mapped_bytes\n"
        "before = mapped_bytes(); block = bytearray(50 << 20); print(mapped_bytes() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == pytest.approx(50 << 20, rel=0.05)


@linux
def test_a_process_is_measured_while_it_lives() -> None:
    code = "block = bytearray(50 << 20); del block; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        seen = of(process.pid)
        assert seen is not None
        assert 0 < seen.private < seen.resident < seen.peak
        assert seen.peak - seen.resident == pytest.approx(50 << 20, rel=0.1)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert of(process.pid) is None  # it has ended, and nobody has asked how
    assert of(process.pid) is None


@linux
def test_a_lasting_bound_leaves_so_much_and_no_lower_one_is_lifted() -> None:
    code = (
        "from agentlab.workers.memory import bound_memory\n"
        "bound_memory(None); bytearray(100 << 20); bound_memory(32 << 20); bound_memory(1 << 30)\n"
        "bytearray(20 << 20)\n"
        "try: bytearray(40 << 20)\n"
        "except MemoryError: print('bounded')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["bounded"]


@linux
def test_the_bound_holds_in_the_block_and_is_gone_after_it() -> None:
    code = (
        "import threading\n"
        "from agentlab.workers.memory import at_most, mapped_bytes\n"
        "with at_most(mapped_bytes() + (32 << 20)):\n"
        "    bytearray(20 << 20)\n"
        "    try: bytearray(40 << 20); print('unbounded')\n"
        "    except MemoryError: print('bounded')\n"
        "    gate, started = threading.Event(), 0\n"
        "    try:\n"
        "        for _ in range(50): threading.Thread(target=gate.wait).start(); started += 1\n"
        "    except (RuntimeError, MemoryError): pass\n"
        "    gate.set(); print('threads', started < 50)\n"
        "bytearray(40 << 20); print('free')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["bounded", "threads", "True", "free"]


def test_no_ceiling_is_no_bound() -> None:
    with at_most(None):
        assert len(bytearray(10 << 20))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_want_of_memory_is_known_in_all_its_words(error: Exception) -> None:
    assert ran_out(error)
    wrapped = ImportError("half a module")
    wrapped.__cause__ = error
    assert ran_out(wrapped)


def test_other_errors_are_not_want_of_memory() -> None:
    assert not ran_out(ValueError("shape mismatch"))
