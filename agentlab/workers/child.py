"""The worker's end: tied to its parent's life, its pipes kept private, its work beside a thread that listens."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from agentlab.workers.wire import decode, encode

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = 500  # of 1000: when memory runs out, the kernel takes the worker, not the run
_BUG = 70


class Pipes:
    """Requests in, replies out."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes]) -> None:
        self._requests, self._replies = requests, replies

    def serve(self, take: Callable[[dict[str, Any]], None], work: Callable[[], None]) -> None:
        """Hand each request to `take` until the input ends, while `work` runs on a thread of its own.

        So the end of input ends the process in the middle of whatever `work` does. The process also ends when `work`
        does, with status 70 and a traceback if that is by a bug: the parent sees a death and not a silence.
        """
        threading.Thread(target=_to_the_end, args=(work,), name="work", daemon=True).start()
        for line in self._requests:
            take(decode(line))
        os._exit(0)  # not sys.exit: the work may be deep in a library

    def answer(self, work: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Answer one request after the other on this thread, until the input ends."""
        for line in self._requests:
            self.reply(work(decode(line)))

    def reply(self, message: Mapping[str, Any]) -> None:
        """As `send`; what `encode` refuses is a ValueError or TypeError, and nothing was sent."""
        self.send(encode(message))

    def send(self, line: bytes) -> None:
        """Send an encoded message; without a parent to read it the process ends."""
        try:
            self._replies.write(line)
            self._replies.flush()
        except BrokenPipeError:
            os._exit(0)


def attach(parent: int) -> Pipes:
    """Become a worker of the process `parent`. Called first, on the main thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which decides what becomes of the work
    _die_with(parent)
    return _keep_pipes()


def _to_the_end(work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException:  # noqa: BLE001 - also SystemExit, which would end the thread and leave the process mute
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(_BUG)
    os._exit(0)


def _keep_pipes() -> Pipes:
    """Move the protocol off descriptors 0 and 1: a stray print lands on stderr, a stray read sees an empty input."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return Pipes(requests, replies)


def _die_with(parent: int) -> None:
    """End when the parent does, even if a process that it forked keeps our input open (Linux only).

    The kernel signals the end of the parent's *thread* that started us, so the handler looks before it leaves.
    """

    def leave_if_orphan(*_: object) -> None:
        if os.getppid() != parent:
            os._exit(0)

    signal.signal(signal.SIGHUP, leave_if_orphan)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)
        with contextlib.suppress(OSError):  # a sandbox may forbid it; then the kernel chooses by size alone
            Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    leave_if_orphan()
