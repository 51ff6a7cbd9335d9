"""When which bytes are sent: a scene as steps on a clock. Pure; where a reply is endless, so is the iterator."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache
from itertools import chain, count, repeat
from typing import Literal

from agentlab.bench.mock.answer import MockAnswer
from agentlab.bench.mock.protocols import ChatDialect, MessagesDialect
from agentlab.bench.mock.script import MockScene

Dialect = ChatDialect | MessagesDialect
# How a reply ends: the connection can be used again, is closed, is reset, or stays open in silence.
End = Literal["keep", "close", "reset", "hold"]
Step = tuple[float, bytes]  # seconds after the request was there, and what is sent then

HUGE_BODY, HUGE_LINE = 200_000_000, 5_000_000  # bytes
_BLOCK = b" " * 1_000_000
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_PAGE = b"<!doctype html><html><body><h1>Welcome to the proxy</h1></body></html>"
_END_OF_CUT: dict[str, End] = {"reset": "reset", "close": "close", "stall": "hold"}
_BROKEN = b'data: {"choices": [{"delta": {"content": "half a\n\n'


@dataclass(frozen=True, slots=True)
class Performance:
    """Steps in the order of their times, and the end after the last of them."""

    steps: Iterable[Step]
    end: End = "keep"


def reply(status: int, body: bytes, kind: str = "application/json", headers: str = "") -> bytes:
    """A whole reply."""
    head = f"HTTP/1.1 {status} Mock\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def failure(scene: MockScene, dialect: Dialect, now: datetime, quoted: str) -> bytes:
    """An error reply. `quoted` is the key of the request: some providers repeat it when they refuse it."""
    message = f"Incorrect API key provided: {quoted}." if scene.status == 401 and quoted else ""
    return reply(scene.status, dialect.error(scene.status, scene.reason, message), headers=_wait(scene, now))


def _wait(scene: MockScene, now: datetime) -> str:
    if scene.wait is None:
        return ""
    kind, value = scene.wait
    if kind == "rams":
        return f"retry-after-ms: {value:g}\r\n"
    if kind == "radate":
        # a header's date has whole seconds: never before the moment that is meant
        moment = now.astimezone(UTC) + timedelta(seconds=value, microseconds=999_999)
        return f"Retry-After: {format_datetime(moment.replace(microsecond=0), usegmt=True)}\r\n"
    return f"Retry-After: {value:g}\r\n" if kind == "ra" else f"Retry-After: {kind}\r\n"


def anywhere(scene: MockScene, first: float = 0.0) -> Performance | None:
    """What is the same for streams and documents; None when the scene speaks."""
    if scene.act in ("refuse", "silence"):
        return Performance((), "reset" if scene.act == "refuse" else "hold")
    if scene.act == "html":
        return Performance(((first, reply(200, _PAGE, "text/html")),))
    if scene.act == "huge":
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {HUGE_BODY}\r\n\r\n".encode()
        blocks = repeat((first, _BLOCK), HUGE_BODY // len(_BLOCK))
        return Performance(chain(((first, head),), blocks))
    return None


def stream(scene: MockScene, answer: MockAnswer, dialect: Dialect) -> Performance:
    """A scene as server-sent events."""
    opening = _STREAM + _chunk(dialect.opening(answer))
    if scene.act == "comments":
        ticks = ((scene.ttft + k * scene.itl, _chunk(b": still here\n\n")) for k in count())
        return Performance(chain(((0.0, opening),), ticks))
    if scene.act == "hugeline":
        line = _chunk(b"data: " + b"x" * HUGE_LINE + b"\n\n")
        return Performance(((0.0, opening), (scene.ttft, line + _LAST_CHUNK)))
    if scene.act == "error-event":
        return Performance(((0.0, opening), (scene.ttft, _chunk(dialect.error_event(scene.status)) + _LAST_CHUNK)))
    tokens = dialect.tokens(answer)
    closing = _chunk(dialect.closing(answer)) + _LAST_CHUNK
    if scene.act in ("reset", "close", "stall"):
        # a clean end of the body, so that only the missing finish reason tells
        last = _LAST_CHUNK if scene.act == "close" else b""
        return Performance(_timed_steps(scene, opening, tokens[: scene.at], last), _END_OF_CUT[scene.act])
    if scene.act == "drip":
        first, *later_tokens = tokens or (b"",)
        return Performance(_drip_steps(scene, opening, _chunk(first), b"".join(map(_chunk, later_tokens)) + closing))
    if scene.act == "badjson":
        tokens = (*tokens[: scene.at], _BROKEN, *tokens[scene.at + 1 :])
    return Performance(_timed_steps(scene, opening, tokens, closing))


def document(scene: MockScene, body: bytes, broken: bytes) -> Performance:
    """A scene as one document, there when the last token is. `broken` is the body of its error."""
    due = scene.ttft + max(0, scene.tokens - 1) * scene.itl
    full_reply = reply(200, body)
    head, content = full_reply[: -len(body)], body
    if scene.act in ("reset", "close", "stall"):
        sent_part = content[: len(content) * scene.at // max(1, scene.tokens)]
        return Performance(((due, head + sent_part),), _END_OF_CUT[scene.act])
    if scene.act == "drip":
        return Performance(_drip_steps(scene, b"", head + content[:1], content[1:]))
    if scene.act == "comments":  # the spaces with which some servers keep a connection alive
        opening = _STREAM.replace(b"text/event-stream", b"application/json")
        ticks = ((scene.ttft + k * scene.itl, _chunk(b" ")) for k in count())
        return Performance(chain(((0.0, opening),), ticks))
    if scene.act == "badjson":
        return Performance(((due, reply(200, content[: len(content) // 2])),))
    if scene.act == "hugeline":
        return Performance(((due, reply(200, b'{"padding": "' + b"x" * HUGE_LINE + b'"}')),))
    if scene.act == "error-event":
        return Performance(((due, reply(200, broken)),))
    return Performance(((due, full_reply),))


@lru_cache(maxsize=16)
def _chunks(events: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Each event as a piece of its own, as servers that flush each token send it."""
    return tuple(map(_chunk, events))


def _chunk(data: bytes) -> bytes:
    """A piece of a body in HTTP's chunked coding; nothing for nothing, which would be the end."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _timed_steps(scene: MockScene, opening: bytes, tokens: tuple[bytes, ...], closing: bytes) -> tuple[Step, ...]:
    """Token k at ttft + k * itl; what ends the answer goes with its last token, what is due at once is one step."""
    if not scene.ttft and not scene.itl:
        return ((0.0, b"".join((opening, *_chunks(tokens), closing))),)
    steps = [(0.0, opening), *((scene.ttft + k * scene.itl, chunk) for k, chunk in enumerate(_chunks(tokens)))]
    due, last = steps[-1]
    steps[-1] = (due if tokens else scene.ttft, last + closing)
    return tuple(steps)


def _drip_steps(scene: MockScene, opening: bytes, first: bytes, later_bytes: bytes) -> Iterator[Step]:
    yield scene.ttft, opening + first
    for number in range(len(later_bytes)):
        yield scene.ttft + (number + 1) * scene.itl, later_bytes[number : number + 1]
