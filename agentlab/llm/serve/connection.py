"""The server's end of a connection: uvicorn's, with deadlines for what a client owes, and a bound on their number.

uvicorn waits for ever for a request's head, for its body, and for a client to take its answer.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from agentlab.llm.serve.call import encode_json
from agentlab.llm.serve.faults import document

KEEP_ALIVE = 65  # seconds; longer than clients keep a connection, so that it is they who close it
# Seconds for a head (from its first byte, or from the connection's first moment), a body, a further request, and for
# taking what is left of an answer.
SECONDS = {"head": 10.0, "body": 60.0, "idle": KEEP_ALIVE, "take": 60.0}
_STUCK = 2.0  # seconds without taking anything, after which a client makes room for another's request
_HEAD_BYTES = 16 << 10
_FREE_PIECES, _PIECE_BYTES = 512, 256  # a body may come in so many pieces, and one more for each so many bytes


class _Stream(h11.Connection):
    """h11's connection. A chunk costs as much work as kilobytes do, so that chunks of a byte each are no body."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, _HEAD_BYTES)
        self.status = 400  # of what is wrong with the request
        self._pieces = self._bytes = 0

    def next_event(self) -> Any:
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.status = error.error_status_hint
            raise
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
            if {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}:
                raise h11.RemoteProtocolError("Content-Length and Transfer-Encoding cannot be used together")
        elif isinstance(event, h11.Data):
            self._pieces, self._bytes = self._pieces + 1, self._bytes + len(event.data)
            if self._pieces > _FREE_PIECES + self._bytes // _PIECE_BYTES:
                self.status = 413
                raise h11.RemoteProtocolError("too many chunks")
        return event


@dataclass(frozen=True, slots=True)
class Crowd:
    """What the connections of a gateway share. Who has let us wait longest makes room for others."""

    most: int  # connections that may be open
    # Those whose client owes something, the longest first.
    waiting: dict["GatewayConnection", None] = field(default_factory=dict)
    # Those whose client does not take its answer, and since when in the loop's time, the longest first.
    stuck: dict["GatewayConnection", float] = field(default_factory=dict)

    def end_stuck(self) -> bool:
        """End the connection that has been stuck for longest, which frees the place of its request; whether one was."""
        connection, since = next(iter(self.stuck.items()), (None, 0.0))
        if connection is None or connection.loop.time() - since < _STUCK:
            return False
        del self.stuck[connection]
        connection.transport.abort()
        return True


class GatewayConnection(H11Protocol):
    """One connection. What the client owes (a head, a body, room for an answer) it owes until a deadline."""

    def __init__(self, *args: Any, crowd: Crowd, **kwargs: Any) -> None:
        """Beyond the most that may be open, the one that has let us wait longest makes room."""
        super().__init__(*args, **kwargs)
        self.conn: _Stream = _Stream()
        self._crowd, self._waiting = crowd, crowd.waiting
        self._owed: str | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        if len(self.connections) >= self._crowd.most:
            longest = next(iter(self._waiting), None)
            if longest is None:
                transport.abort()
            else:
                del self._waiting[longest]
                self.connections.discard(longest)
                longest.transport.abort()
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._waiting.pop(self, None)
        self._crowd.stuck.pop(self, None)
        for timer in (self._deadline, self._stuck):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._crowd.stuck[self] = self.loop.time()
        self._stuck = self.loop.call_later(SECONDS["take"], self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._crowd.stuck.pop(self, None)
        if self._stuck is not None:
            self._stuck.cancel()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words
        self._refuse(self.conn.status, "invalid_http", "The request is not valid HTTP.")

    def _watch(self) -> None:
        """Set the deadline of what the client owes now, if that has changed."""
        owed = self._owes()
        if owed == self._owed:
            return
        self._owed = owed
        self._waiting.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
        if owed is not None:
            self._waiting[self] = None
            self._deadline = self.loop.call_later(SECONDS[owed], self._late)

    def _owes(self) -> str | None:
        theirs = self.conn.their_state
        if theirs is h11.SEND_BODY:
            return "body"
        if theirs is h11.IDLE:
            return "head" if self.cycle is None or self.conn.trailing_data[0] else "idle"
        return None if self.cycle is not None and not self.cycle.response_complete else "take"

    def _late(self) -> None:
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self.transport.abort()  # it has not said a word
        else:
            self._refuse(408, "timeout", "The request did not arrive in time.")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer in place of the routes, if no answer has begun, and close."""
        has_begun = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if self.transport.is_closing() or has_begun or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        if self.cycle is not None:  # what still runs for it learns that nobody listens
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = encode_json(document(message, status, code))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        head = h11.Response(
            status_code=status, headers=[*headers, (b"connection", b"close")], reason=STATUS_PHRASES[status]
        )
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self._watch()
