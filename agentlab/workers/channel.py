"""The parent's end of a worker: its process and three pipes, read without threads and never blocking for long."""

import contextlib
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import agentlab
from agentlab import machine
from agentlab.workers.wire import MAX_LINE, decode, encode

_TAIL_BYTES = 8192
_BLOCK = 65536
_KILL_SECONDS = 2.0


class Channel:
    """A running worker. One thread at a time may read, and one write; `kill` is for any."""

    def __init__(self, module: str, variables: Mapping[str, str], longest: int = MAX_LINE) -> None:
        """Start `python -m MODULE PARENT_PID` (see `child.attach`) in a session no terminal's Ctrl-C reaches.

        `variables` are added to `machine.inherited_environment`; `longest`: bytes of a message of the worker, at most.

        Raises:
            OSError: no memory or no process number left.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            # -m puts the working directory first on the path: make that the folder of agentlab, not the user's.
            cwd=Path(agentlab.__file__).parent.parent,
            env={**machine.inherited_environment(), **variables},
        )
        self._pipes = [pipe for pipe in (self._process.stdin, self._process.stdout, self._process.stderr) if pipe]
        self._stdin, self._stdout, self._stderr = (pipe.fileno() for pipe in self._pipes)
        self._selector = selectors.DefaultSelector()
        for number in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(number, False)
        for number in (self._stdout, self._stderr):
            self._selector.register(number, selectors.EVENT_READ)
        self._received, self._tail = bytearray(), bytearray()
        self._open, self._longest = True, longest

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._open and self._process.poll() is None

    def send(self, message: Mapping[str, Any], seconds: float) -> bool:
        """Write a message; False when the worker did not take it within `seconds`.

        Raises:
            EOFError: the worker is gone.
        """
        data, deadline = memoryview(encode(message)), time.monotonic() + seconds
        with selectors.DefaultSelector() as writable:
            writable.register(self._stdin, selectors.EVENT_WRITE)
            while data:
                if not writable.select(max(0.0, deadline - time.monotonic())):
                    return False
                try:
                    data = data[os.write(self._stdin, data) :]
                except BrokenPipeError as error:
                    raise EOFError("the worker has exited") from error
        return True

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next message, or None when none came within `seconds`.

        Raises:
            EOFError: the worker is gone and has said all it had to say.
            ValueError: the worker does not speak the protocol.
        """
        deadline = time.monotonic() + seconds
        while b"\n" not in self._received:
            if len(self._received) > self._longest:
                raise ValueError("a line is too long")
            if not self._open:
                raise EOFError("the worker has exited")
            ready = self._selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            for key, _ in ready:
                self._read(key.fd)
        line, _, self._received = self._received.partition(b"\n")
        return decode(bytes(line))

    def _read(self, pipe: int) -> None:
        try:
            block = os.read(pipe, _BLOCK)
        except BlockingIOError:
            return
        if not block:
            self._selector.unregister(pipe)
            self._open = self._open and pipe != self._stdout
        elif pipe == self._stdout:
            self._received += block
        else:
            self._tail = (self._tail + block)[-_TAIL_BYTES:]

    def kill(self) -> None:
        """End the process, now. Any thread may call this; the pipes stay open for the one that reads them."""
        if self._process.poll() is None:
            self._process.kill()

    def dispose(self) -> tuple[int, str]:
        """Kill the process if it still runs and close the pipes; return its exit status and the tail of its log."""
        if self._open:
            self.kill()
        try:
            status = self._process.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired:  # closed its output but lingers
            self.kill()
            status = self._process.wait()
        with contextlib.suppress(BlockingIOError):  # somebody else holds the pipe open: what came is all there is
            while block := os.read(self._stderr, _BLOCK):
                self._tail = (self._tail + block)[-_TAIL_BYTES:]
        self._selector.close()
        for pipe in self._pipes:
            pipe.close()
        self._open = False
        return status, self._tail.decode(errors="replace").strip()

    def listening(self) -> list[int]:
        return [key.fd for key in self._selector.get_map().values()] if self._open else []


def wait_for_any(channels: Iterable[Channel], seconds: float) -> None:
    """Return as soon as one of the workers has said something or is gone, at the latest after `seconds`."""
    with selectors.DefaultSelector() as selector:
        for channel in channels:
            for number in channel.listening():
                selector.register(number, selectors.EVENT_READ)
        selector.select(seconds)
