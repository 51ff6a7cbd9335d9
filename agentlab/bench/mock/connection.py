"""One client's connection: requests are taken one after the other, each reply is sent by its clock.

Every step has its own deadline, counted from the moment when the request was there: a late step delays no other one.
"""

import asyncio
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET

from agentlab.bench.mock.performance import End, Performance, Step, reply

_GRACE = 0.02  # seconds; a reset overtakes what was sent just before it
_LONGEST_HOLD = 600.0  # seconds of silence, or of a reply that never ends
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

# What a request leads to, and what to call when the reply is over: with True if it was sent to its end.
Play = tuple[Performance, Callable[[bool], None]]
LARGEST_HEAD, LARGEST_BODY = 64 << 10, 64 << 20  # bytes


@dataclass(frozen=True, slots=True)
class MockRequest:
    """`key` is the value of the header that carried a key, "" without one."""

    method: str
    path: str
    key: str
    body: bytes


class Refused(Exception):  # noqa: N818 - a refusal with a status, not a defect
    """What came in is answered with this status, and the connection is closed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Inbox:
    """HTTP/1.1 as far as clients of language models speak it: a head, and a body of a known length.

    Bytes in, in whatever pieces they come; whole requests out. Pure.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._needed = 0  # bytes without which looking again is idle

    def feed(self, block: bytes) -> None:
        self._data += block

    def take(self) -> MockRequest | None:
        """The next whole request, None if it is not there yet.

        Raises:
            Refused: it will never be one.
        """
        data = self._data
        if len(data) < max(self._needed, 1):
            return None
        end = data.find(b"\r\n\r\n", 0, LARGEST_HEAD)
        if end < 0:
            if len(data) >= LARGEST_HEAD:
                raise Refused(431, "The request head is too large.")
            return None
        line, *lines = bytes(data[:end]).decode("latin-1").split("\r\n")
        fields = [text.partition(":") for text in lines]
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        start = end + 4
        self._needed = start + _length(headers)
        if len(data) < self._needed:
            return None
        body = bytes(data[start : self._needed])
        del data[: self._needed]
        self._needed = 0
        method, path = _target(line)
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        return MockRequest(method, path, key, body)


def _length(headers: dict[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise Refused(411, "A request body needs a Content-Length.")
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()):
        raise Refused(400, "The Content-Length is not a number.")
    if len(text) > 12 or int(text) > LARGEST_BODY:
        raise Refused(413, f"The request body exceeds the limit of {LARGEST_BODY} bytes.")
    return int(text)


def _target(line: str) -> tuple[str, str]:
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise Refused(400, "This is not an HTTP/1.1 request.")
    return words[0], words[1].partition("?")[0]


class MockConnection(asyncio.Protocol):
    """Belongs to a server, which decides what is played."""

    def __init__(self, play: Callable[[MockRequest], Play], opened: Callable[["MockConnection", bool], None]) -> None:
        """`opened` is told of the beginning (True) and the end (False) of the connection."""
        self._play = play
        self._opened = opened
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._inbox = Inbox()
        self._over: Callable[[bool], None] | None = None  # set while a reply is on its way
        self._steps: Iterator[Step] = iter(())
        self._step: Step | None = None
        self._end: End = "keep"
        self._began = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._opened(self, True)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._finish(complete=False)
        self._opened(self, False)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._over is not None and self._timer is None:
            self._go_on()

    def data_received(self, data: bytes) -> None:
        self._inbox.feed(data)
        if self._over is None:
            self._next()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _next(self) -> None:
        while self._over is None and self._transport is not None:
            try:
                request = self._inbox.take()
            except Refused as refused:
                self._transport.write(reply(refused.status, str(refused).encode(), "text/plain"))
                self._transport.close()
                return
            if request is None:
                return
            self._began = self._loop.time()
            performance, self._over = self._play(request)
            self._steps, self._end = iter(performance.steps), performance.end
            self._step = next(self._steps, None)
            self._advance()

    def _go_on(self) -> None:
        self._timer = None
        self._advance()
        self._next()

    def _advance(self) -> None:
        while self._step is not None:
            if self._paused or self._transport is None or self._transport.is_closing():
                return
            due = self._began + self._step[0]
            now = self._loop.time()
            if now - self._began > _LONGEST_HOLD:
                self.abort()
                return
            if due > now:
                self._timer = self._loop.call_at(due, self._go_on)
                return
            self._transport.write(self._step[1])
            self._step = next(self._steps, None)
        self._conclude()

    def _conclude(self) -> None:
        if self._end == "hold":
            self._timer = self._loop.call_later(_LONGEST_HOLD, self.abort)
            return
        if self._end == "reset":
            self._timer = self._loop.call_later(_GRACE, self._reset)
            return
        self._finish(complete=True)
        if self._end == "close" and self._transport is not None:
            self._transport.close()

    def _reset(self) -> None:
        self._finish(complete=True)
        if self._transport is not None:
            self._transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()

    def _finish(self, *, complete: bool) -> None:
        report_end, self._over, self._step, self._steps = self._over, None, None, iter(())
        if report_end is not None:
            report_end(complete)
