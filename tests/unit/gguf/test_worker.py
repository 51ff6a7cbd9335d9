"""The worker process on its own: its pipes, signals and end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentlab.workers.wire import decode, encode

REPOSITORY = Path(__file__).resolve().parents[3]


def start(parent: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "agentlab.gguf.worker", str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
    )


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    process = start(os.getpid())
    yield process
    process.kill()
    process.communicate()


def has(pid: int, mask: str, number: signal.Signals) -> bool:
    """Whether the kernel's `SigIgn` or `SigCgt` mask of a process has a signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    bits = next(line for line in lines if line.startswith(mask)).split()[1]
    return bool(int(bits, 16) >> (number - 1) & 1)


LOAD = {"op": "load", "context": 64, "threads": 1, "batch": 32, "gpu_layers": 0}


def test_it_ends_when_its_input_ends(worker: subprocess.Popen[bytes]) -> None:
    out, _ = worker.communicate(timeout=10)
    assert worker.returncode == 0
    assert out == b""


def test_it_ends_at_once_when_its_parent_is_gone_already() -> None:
    process = start(parent=1 << 30)
    try:
        assert process.wait(timeout=10) == 0
    finally:
        process.communicate()


def test_interrupts_are_for_the_parent(worker: subprocess.Popen[bytes], tmp_path: Path) -> None:
    assert worker.stdin
    assert worker.stdout
    (tmp_path / "bad.gguf").write_bytes(b"no model")
    while not has(worker.pid, "SigCgt", signal.SIGHUP):  # before, a signal would end the starting interpreter
        time.sleep(0.01)
    assert has(worker.pid, "SigIgn", signal.SIGINT)
    worker.send_signal(signal.SIGINT)
    worker.send_signal(signal.SIGHUP)  # what the kernel sends when the starting thread ends: the parent still lives
    worker.stdin.write(encode({**LOAD, "id": 7, "path": str(tmp_path / "bad.gguf")}))
    worker.stdin.flush()
    reply = decode(worker.stdout.readline())
    assert (reply["event"], reply["id"], reply["kind"]) == ("error", 7, "ModelFileError")


def test_a_stray_print_cannot_enter_the_protocol() -> None:
    code = (
        "import os, sys\n"
        "from agentlab.workers import child\n"
        "pipes = child.attach(os.getppid())\n"
        "print('a library says hello', flush=True); os.write(1, b'and so does C\\n')\n"
        "assert sys.stdin.read() == ''\n"
        "pipes.send(b'only this\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"a request\n", capture_output=True, cwd=REPOSITORY, check=True
    )
    assert done.stdout == b"only this\n"
    assert b"hello" in done.stderr
    assert b"so does C" in done.stderr


def test_a_bug_on_the_model_thread_ends_the_process_with_its_traceback(worker: subprocess.Popen[bytes]) -> None:
    assert worker.stdin
    assert worker.stderr
    worker.stdin.write(encode({"op": "load", "id": 1, "nonsense": True}))
    worker.stdin.flush()
    assert worker.wait(timeout=20) == 70
    assert b"TypeError" in worker.stderr.read()
