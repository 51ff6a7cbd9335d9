"""The server: one process, one event loop, no framework, because a framework would be the bottleneck it looks for.

async with MockServer() as server: ...    on the running loop
with in_thread() as server: ...           beside synchronous code
with in_process() as url: ...             on a core of its own; the same as `python -m agentlab.bench.mock`
"""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self

from agentlab.bench.mock import chat, performance
from agentlab.bench.mock.answer import answer_to
from agentlab.bench.mock.chat import ChatDialect
from agentlab.bench.mock.connection import Connection, Play
from agentlab.bench.mock.dialect import Dialect, dump
from agentlab.bench.mock.messages import MessagesDialect
from agentlab.bench.mock.performance import Performance, reply
from agentlab.bench.mock.question import Question, read
from agentlab.bench.mock.script import Scene, scene_of
from agentlab.bench.mock.seen import Seen
from agentlab.bench.mock.wire import Request

HOST = "127.0.0.1"
EXAMPLES = ("ok", "ok-ttft200-itl10-n100", "429-ra2-then-ok", "500", "close-40-of-60", "faults20")
_CHAT, _MESSAGES, _EMBEDDINGS = "/v1/chat/completions", "/v1/messages", "/v1/embeddings"
_DIALECTS: dict[str, Dialect] = {_CHAT: ChatDialect(), _MESSAGES: MessagesDialect(), _EMBEDDINGS: ChatDialect()}


class MockServer:
    """Answers by script; see `agentlab.bench.mock.script`. Listens on loopback only."""

    def __init__(self, *, seed: int = 0, port: int = 0) -> None:
        """`seed` decides what `faults20` draws; port 0 is any free one."""
        self._seed = seed
        self._port = port
        self._seen = Seen()
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._controls: dict[tuple[str, str], Callable[[], bytes]] = {
            ("GET", "/v1/models"): lambda: chat.models(EXAMPLES),
            ("GET", "/__seen"): lambda: json.dumps(self.seen()).encode(),
            ("POST", "/__reset"): self._forgotten,
        }

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        loop = asyncio.get_running_loop()
        make = partial(Connection, self._play, self._opened)
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
        """Without a path, as Anthropic's clients take it."""
        return f"http://{HOST}:{self._port}"

    @property
    def url(self) -> str:
        """With /v1, as OpenAI's clients take it."""
        return f"{self.origin}/v1"

    def seen(self) -> dict[str, Any]:
        """What arrived; see `Seen.as_dict`."""
        return self._seen.as_dict()

    def reset(self) -> None:
        """Forget what arrived: every script starts again."""
        self._seen.reset()

    def _forgotten(self) -> bytes:
        self.reset()
        return b"{}"

    def _opened(self, connection: Connection, there: bool) -> None:
        if there:
            self._connections.add(connection)
            self._seen.connections += 1
        else:
            self._connections.discard(connection)
        self._seen.open = len(self._connections)

    # -- one request --------------------------------------------------------------------------------------------

    def _play(self, request: Request) -> Play:
        control = self._controls.get((request.method, request.path))
        if control is not None:
            return _answered(200, control()), _ignore
        dialect = _DIALECTS.get(request.path)
        if dialect is None or request.method != "POST":
            return _answered(404, dump({"error": {"message": f"Nothing at {request.method} {request.path}."}})), _ignore
        try:
            question = read(request.body)
        except ValueError as error:
            return _answered(400, dialect.error(400, "", f"{error}.")), _ignore
        at = asyncio.get_running_loop().time()
        ordinal = self._seen.arrived(question.model, request.body, key=bool(request.key), at=at)
        over = partial(self._over, question.model)
        try:
            scene = scene_of(question.model, ordinal, self._seed)
        except ValueError as error:
            return _answered(404, dialect.error(404, "", f"The model {question.model!r} is unknown: {error}.")), over
        return _perform(scene, question, dialect, request), over

    def _over(self, model: str, whole: bool) -> None:
        seen = self._seen.of(model)
        if whole:
            seen.finished += 1
        else:
            seen.left.append(asyncio.get_running_loop().time())


def _perform(scene: Scene, question: Question, dialect: Dialect, request: Request) -> Performance:
    if scene.act == "status":
        failed = performance.failure(scene, dialect, datetime.now(UTC), request.key)
        return Performance(((scene.ttft, failed),))
    played = performance.anywhere(scene, scene.ttft)
    if played is not None:
        return played
    if request.path == _EMBEDDINGS:
        return performance.document(scene, chat.embeddings(question, scene), _error_document(dialect, scene))
    answer = answer_to(question, scene)
    if question.streamed and scene.act != "document":
        return performance.stream(scene, answer, dialect)
    return performance.document(scene, dialect.document(answer), _error_document(dialect, scene))


def _error_document(dialect: Dialect, scene: Scene) -> bytes:
    return dialect.error(scene.status, "", "The upstream model gave up.") if scene.act == "error-event" else b""


def _answered(status: int, body: bytes) -> Performance:
    return Performance(((0.0, reply(status, body)),))


def _ignore(whole: bool) -> None:
    """Nobody asks how this reply ended."""
    del whole
