"""The server: one process, one event loop, no framework, because a framework would be the bottleneck it looks for.

async with MockServer() as server: ...    on the running loop
with in_process() as url: ...             on a core of its own; the same as `python -m agentlab.bench.mock`
"""

import asyncio
import hashlib
import json
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self

from agentlab import machine
from agentlab.bench.mock import performance, protocols
from agentlab.bench.mock.answer import MockQuestion, answer_to, dump, read
from agentlab.bench.mock.connection import MockConnection, MockRequest, Play
from agentlab.bench.mock.performance import Dialect, Performance, reply
from agentlab.bench.mock.protocols import ChatDialect, MessagesDialect
from agentlab.bench.mock.script import MockScene, scene_of

HOST = "127.0.0.1"
EXAMPLES = ("ok", "ok-ttft200-itl10-n100", "429-ra2-then-ok", "500", "close-40-of-60", "faults20")
_CHAT, _MESSAGES, _EMBEDDINGS = "/v1/chat/completions", "/v1/messages", "/v1/embeddings"
_DIALECTS: dict[str, Dialect] = {_CHAT: ChatDialect(), _MESSAGES: MessagesDialect(), _EMBEDDINGS: ChatDialect()}
MOST_MODELS, MOST_ARRIVALS = 1024, 1024  # that are kept of what arrived
_OTHERS = "(others)"
_START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request. `at` is in seconds of the monotonic clock, which all processes of a machine share."""

    at: float
    sha256: str
    key: bool


@dataclass(slots=True)
class ModelSeen:
    """What one model was asked: all are counted, the newest are kept.

    `finished`: replies that were sent to their end, errors included; `left`: when clients left before that end.
    """

    count: int = 0
    finished: int = 0
    arrivals: deque[Arrival] = field(default_factory=lambda: deque(maxlen=MOST_ARRIVALS))
    left: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_ARRIVALS))

    def as_dict(self) -> dict[str, Any]:
        arrivals = [asdict(arrival) for arrival in list(self.arrivals)]
        return {"count": self.count, "finished": self.finished, "left": list(self.left), "arrivals": arrivals}


class Seen:
    """What arrived, so that a test can say: the fallback got exactly one request.

    By model name; the names beyond the first 1024 share one entry.
    """

    def __init__(self) -> None:
        self._models: dict[str, ModelSeen] = {}
        self.open = 0  # connections now
        self.connections = 0  # connections ever

    def of(self, model: str) -> ModelSeen:
        if model not in self._models and len(self._models) >= MOST_MODELS:
            model = _OTHERS
        return self._models.setdefault(model, ModelSeen())

    def note_arrival(self, model: str, body: bytes, *, key: bool, at: float) -> int:
        """Note a request; how many of this model came before it."""
        seen = self.of(model)
        seen.arrivals.append(Arrival(at, hashlib.sha256(body).hexdigest(), key))
        seen.count += 1
        return seen.count - 1

    def reset(self) -> None:
        """Forget all requests: every script starts again. Connections stay counted while they are open."""
        self._models.clear()
        self.connections = self.open

    def as_dict(self) -> dict[str, Any]:
        models = {name: seen.as_dict() for name, seen in list(self._models.items())}
        return {"models": models, "connections": {"open": self.open, "total": self.connections}}


class MockServer:
    """Answers by script; see `agentlab.bench.mock.script`. Listens on loopback only."""

    def __init__(self, *, seed: int = 0, port: int = 0) -> None:
        """`seed` decides what `faults20` draws; port 0 is any free one."""
        self._seed = seed
        self._port = port
        self._seen = Seen()
        self._connections: set[MockConnection] = set()
        self._server: asyncio.Server | None = None
        self._controls: dict[tuple[str, str], Callable[[], bytes]] = {
            ("GET", "/v1/models"): lambda: protocols.models(EXAMPLES),
            ("GET", "/__seen"): lambda: json.dumps(self.seen()).encode(),
            ("POST", "/__reset"): self._forget,
        }

    async def __aenter__(self) -> Self:
        """Listen; an `OSError` says that the port is taken."""
        loop = asyncio.get_running_loop()
        make = partial(MockConnection, self._play, self._note_connection)
        self._server = await loop.create_server(make, HOST, self._port, backlog=1024)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            for connection in list(self._connections):
                connection.abort()
            await self._server.wait_closed()

    @property
    def origin(self) -> str:
        return f"http://{HOST}:{self._port}"

    @property
    def url(self) -> str:
        """With /v1, as OpenAI's clients take it."""
        return f"{self.origin}/v1"

    def seen(self) -> dict[str, Any]:
        return self._seen.as_dict()

    def reset(self) -> None:
        self._seen.reset()

    def _forget(self) -> bytes:
        self.reset()
        return b"{}"

    def _note_connection(self, connection: MockConnection, is_open: bool) -> None:
        if is_open:
            self._connections.add(connection)
            self._seen.connections += 1
        else:
            self._connections.discard(connection)
        self._seen.open = len(self._connections)

    # -- one request --------------------------------------------------------------------------------------------

    def _play(self, request: MockRequest) -> Play:
        control = self._controls.get((request.method, request.path))
        if control is not None:
            return _immediate_reply(200, control()), _ignore
        dialect = _DIALECTS.get(request.path)
        if dialect is None or request.method != "POST":
            body = dump({"error": {"message": f"No such endpoint: {request.method} {request.path}."}})
            return _immediate_reply(404, body), _ignore
        try:
            question = read(request.body)
        except ValueError as error:
            return _immediate_reply(400, dialect.error(400, "", f"{error}.")), _ignore
        at = asyncio.get_running_loop().time()
        ordinal = self._seen.note_arrival(question.model, request.body, key=bool(request.key), at=at)
        report_end = partial(self._note_end, question.model)
        try:
            scene = scene_of(question.model, ordinal, self._seed)
        except ValueError as error:
            message = f"The model {question.model!r} is unknown: {error}."
            return _immediate_reply(404, dialect.error(404, "", message)), report_end
        return _perform(scene, question, dialect, request), report_end

    def _note_end(self, model: str, complete: bool) -> None:
        seen = self._seen.of(model)
        if complete:
            seen.finished += 1
        else:
            seen.left.append(asyncio.get_running_loop().time())


def _perform(scene: MockScene, question: MockQuestion, dialect: Dialect, request: MockRequest) -> Performance:
    if scene.act == "status":
        failed = performance.failure(scene, dialect, datetime.now(UTC), request.key)
        return Performance(((scene.ttft, failed),))
    played = performance.anywhere(scene, scene.ttft)
    if played is not None:
        return played
    if request.path == _EMBEDDINGS:
        return performance.document(scene, protocols.embeddings(question, scene), _error_document(dialect, scene))
    answer = answer_to(question, scene)
    if question.streamed and scene.act != "document":
        return performance.stream(scene, answer, dialect)
    return performance.document(scene, dialect.document(answer), _error_document(dialect, scene))


def _error_document(dialect: Dialect, scene: MockScene) -> bytes:
    return dialect.error(scene.status, "", "The upstream model gave up.") if scene.act == "error-event" else b""


def _immediate_reply(status: int, body: bytes) -> Performance:
    return Performance(((0.0, reply(status, body)),))


def _ignore(_: bool) -> None:
    """How a reply without a script ends is not counted."""


@contextmanager
def in_process(*, seed: int = 0, core: int | None = None) -> Iterator[str]:
    """A server in a process of its own, bound to a core if one is named; its URL, with /v1. Ends with this process.

    Raises:
        RuntimeError: it did not start.
    """
    command = [sys.executable, "-m", "agentlab.bench.mock", f"--seed={seed}", "--until-eof"]
    command += [] if core is None else [f"--core={core}"]
    env, pipe = machine.inherited_environment(), subprocess.PIPE
    with subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the mock server did not start; see its error message above")
            yield url
        finally:
            process.stdin.close()  # its sign to end
            process.wait(_START_SECONDS)
