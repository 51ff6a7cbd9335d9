"""A real HTTP server on loopback that behaves as badly as it is told to."""

import asyncio
import json
import socket
import socketserver
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from agentlab.config.workspace import Workspace
from agentlab.llm.config import LLMConfig
from agentlab.llm.router import Router
from agentlab.llm.types import Delta, ModelRequest, ToolPiece, Usage

KEY = "sk-canary-0123456789abcdefghij"

# Answers one request on an open connection.
Behaviour = Callable[["Server", socket.socket], None]


@dataclass
class Server:
    """Serves `script` in turn, the last entry for ever, and remembers what it was asked."""

    url: str = ""
    script: list[Behaviour] = field(default_factory=list)
    bodies: list[dict] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)  # a client left while we were silent

    def __call__(self, *script: Behaviour) -> "Server":
        self.script = list(script)
        return self

    # -- behaviours ---------------------------------------------------------------------------------------------

    @staticmethod
    def raw(*pieces: bytes) -> Behaviour:
        """Send these bytes and hang up."""

        def behave(_: Server, peer: socket.socket) -> None:
            for piece in pieces:
                peer.sendall(piece)

        return behave

    @classmethod
    def status(cls, code: int, body: object = "", headers: str = "", kind: str = "application/json") -> Behaviour:
        """A whole reply that is no stream."""
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        head = f"HTTP/1.1 {code} X\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n{headers}\r\n"
        return cls.raw(head.encode() + content)

    @classmethod
    def events(cls, *data: object, done: bool = True) -> Behaviour:
        """A stream of these events."""
        lines = [item if isinstance(item, str) else json.dumps(item) for item in data] + (["[DONE]"] if done else [])
        return cls.raw(HEAD, *(f"data: {line}\n\n".encode() for line in lines))

    @classmethod
    def says(cls, text: str, cost: float | None = None, finish: str | None = "stop", done: bool = True) -> Behaviour:
        """A normal answer, word by word, with usage."""
        words = [chunk(word) for word in text.split(" ")]
        usage = {"prompt_tokens": 10, "completion_tokens": len(words)} | ({"cost": cost} if cost else {})
        last = {"choices": [{"delta": {}, "finish_reason": finish}]}
        for word in words[1:]:
            word["choices"][0]["delta"]["content"] = " " + word["choices"][0]["delta"]["content"]
        tail = [{"choices": [], "usage": usage}] if done else []
        return cls.events(chunk("", role="assistant"), *words, last, *tail, done=done)

    @staticmethod
    def silent(*first: bytes) -> Behaviour:
        """Send the beginning, then nothing, until the client leaves."""

        def behave(server: Server, peer: socket.socket) -> None:
            for piece in first:
                peer.sendall(piece)
            peer.settimeout(0.02)
            while not server.closing.is_set():
                try:
                    if not peer.recv(1):
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
            server.gone.set()

        return behave

    @staticmethod
    def drips(*first: bytes, piece: bytes = b": still here\n\n", every: float = 0.02) -> Behaviour:
        """Send the beginning, then a piece again and again, until the client leaves."""

        def behave(server: Server, peer: socket.socket) -> None:
            for part in first:
                peer.sendall(part)
            while not server.closing.wait(every):
                peer.sendall(piece)

        return behave

    @staticmethod
    def resets(*first: bytes) -> Behaviour:
        """Send the beginning, then reset the connection."""

        def behave(_: Server, peer: socket.socket) -> None:
            for piece in first:
                peer.sendall(piece)
            time.sleep(0.05)  # a reset may overtake what was sent
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            peer.close()

        return behave


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def chunk(text: str, role: str | None = None) -> dict:
    """One event of a chat completion."""
    return {"choices": [{"delta": {"content": text} | ({"role": role} if role else {}), "finish_reason": None}]}


def event(text: str) -> bytes:
    """`chunk` as bytes of a stream."""
    return f"data: {json.dumps(chunk(text))}\n\n".encode()


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server: Server = self.server.script  # type: ignore[attr-defined]
        data = b""
        while b"\r\n\r\n" not in data:
            block = self.request.recv(65536)
            if not block:
                return
            data += block
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        while len(body) < length:
            body += self.request.recv(65536)
        server.heads.append(head.decode())
        server.bodies.append(json.loads(body))
        behave = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        try:
            behave(server, self.request)
        except OSError:
            server.gone.set()


class _TCP(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = True


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers: `serve(behaviour, ...)`."""
    running: list[tuple[_TCP, Server]] = []

    def start(*script: Behaviour) -> Server:
        tcp = _TCP(("127.0.0.1", 0), _Handler)
        server = Server(url=f"http://127.0.0.1:{tcp.server_address[1]}/v1", script=list(script))
        tcp.script = server  # type: ignore[attr-defined]
        threading.Thread(target=tcp.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        running.append((tcp, server))
        return server

    yield start
    for tcp, server in running:
        server.closing.set()
        tcp.shutdown()
        tcp.server_close()


@pytest.fixture
def refusing_url() -> str:
    """The address of a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


@pytest.fixture
def home(tmp_path) -> Workspace:
    """An empty workspace."""
    return Workspace(tmp_path, tmp_path / "cache")


@pytest.fixture
def key() -> str:
    """The key that must never come out again."""
    return KEY


@pytest.fixture
def llm_config() -> Callable[..., LLMConfig]:
    """A config whose models m0, m1... are asked in this order, one provider each, with short clocks."""

    def make(urls: Sequence[str], **changes: object) -> LLMConfig:
        timeout = {"connect": 0.5, "first_token": 0.4, "idle": 0.3, "total": 3.0} | changes.pop("timeout", {})
        models = {f"m{i}": {"provider": f"p{i}", "id": f"id{i}"} | changes.pop(f"m{i}", {}) for i in range(len(urls))}
        tree = {
            "providers": {
                f"p{i}": {"kind": "openai_compat", "base_url": url, "api_key": "${TEST_API_KEY}"}
                for i, url in enumerate(urls)
            },
            "models": models,
            "roles": {"primary": list(models)},
            "defaults": {"timeout": timeout, "retries": changes.pop("retries", 1)},
            **changes,
        }
        return LLMConfig.model_validate(tree, context={"env": {}})

    return make


@pytest.fixture
def route(llm_config, home) -> Iterator[Callable[..., Router]]:
    """A router over servers: `route([server, ...], budget=...)`; closed at the end."""
    routers: list[Router] = []

    def make(servers: Sequence[Server | str], **changes: object) -> Router:
        recorder, stop = changes.pop("recorder", None), changes.pop("stop", None)
        urls = [server if isinstance(server, str) else server.url for server in servers]
        router = Router(
            llm_config(urls, **changes), env={"TEST_API_KEY": KEY}, workspace=home, recorder=recorder, stop=stop
        )
        routers.append(router)
        return router

    yield make
    for router in routers:
        router.close()


class Speaker:
    """A chat model in this process: says its words, in its time, and then ends or raises."""

    def __init__(
        self,
        *answers: str | Exception,
        pause: float = 0.0,
        usage: Usage | None = None,
        tools: Sequence[ToolPiece] = (),
        after: Exception | None = None,
    ) -> None:
        """`answers` in turn, the last one for ever; `pause` is before the first word; `after` is raised at the end."""
        self.answers = list(answers)
        self.pause = pause
        self.usage = usage or Usage(10, 5)
        self.tools = tuple(tools)
        self.after = after
        self.requests: list[ModelRequest] = []
        self.given_up = 0

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta]:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        try:
            await asyncio.sleep(self.pause)
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if isinstance(answer, Exception):
            raise answer
        for word in answer.split(" "):
            yield Delta(text=word if word == answer.split(" ")[0] else f" {word}")
        for piece in self.tools:
            yield Delta(tools=(piece,))
        if self.after is not None:
            raise self.after
        yield Delta(finish="tool_calls" if self.tools else "stop", usage=self.usage)

    async def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def speaker() -> type[Speaker]:
    """A chat model in this process."""
    return Speaker


@pytest.fixture
def among(home) -> Iterator[Callable[..., Router]]:
    """A router over speakers: `among({"a": Speaker("yes")}, roles={...}, models={"a": {...}}, defaults={...})`."""
    routers: list[Router] = []

    def make(speakers: dict[str, Speaker], **changes: object) -> Router:
        models = changes.pop("models", {})
        options = {name: changes.pop(name) for name in ("ledger", "on_sample", "rng", "recorder") if name in changes}
        tree = {
            "providers": {name: {"kind": "scripted"} for name in speakers},
            "models": {name: {"provider": name, "id": name, **models.get(name, {})} for name in speakers},
            "roles": {"primary": list(speakers)},
            **changes,
        }
        config = LLMConfig.model_validate(tree, context={"env": {}})
        routers.append(Router(config, env={}, workspace=home, models=speakers, **options))
        return routers[-1]

    yield make
    for router in routers:
        router.close()
