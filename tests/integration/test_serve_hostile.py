"""The gateway as a process, before clients that mean harm or send nonsense: it stays small, quick and alive."""

import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FILES = 512  # that the process may have open
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
GOOD = json.dumps({"model": "agentlab", "messages": [{"role": "user", "content": "hi"}]}).encode()
EMPTY_LISTS = b'{"model":"agentlab","messages":[' + b"[]," * (5 << 18) + b"[]]}"  # 3.75 MiB


class Gateway:
    """A process that serves the scripted model."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.port = int(process.stdout.readline().rpartition(":")[2].removesuffix("/v1\n"))

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def say(self, *blocks: bytes, wait: float = 20, pause: float = 0.0) -> bytes:
        """The first reply to raw bytes: nothing if there is none within `wait` seconds."""
        reply = b""
        with self.connect() as peer, suppress(OSError):  # it may reset a connection whose rest it does not want
            with suppress(OSError):
                for block in blocks:
                    peer.sendall(block)
                    time.sleep(pause)
            peer.settimeout(wait)
            while not whole(reply) and (block := peer.recv(1 << 16)):
                reply += block
        return reply

    def health(self) -> float:
        """Seconds until it says that it is well."""
        start = time.monotonic()
        assert self.say(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").endswith(b'"ok"}')
        return time.monotonic() - start

    def answers(self) -> bool:
        return self.say(posted(GOOD)).startswith(b"HTTP/1.1 200")

    @property
    def most_memory(self) -> int:
        """MiB, at the worst moment so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) >> 10


@contextmanager
def started(home: Path, *words: str) -> Iterator[Gateway]:
    process = subprocess.Popen(
        [sys.executable, "-m", "agentlab", "serve", *words, "--port", "0"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES)),
    )
    try:
        yield Gateway(process)
        process.terminate()
        _, err = process.communicate(timeout=20)
        assert "Traceback" not in err
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with started(tmp_path_factory.mktemp("home"), "scripted") as one:
        yield one


def test_requests_that_never_end_do_not_hold_up_the_end(tmp_path):
    with started(tmp_path, "scripted", "--set=providers.script.mode=stuck") as one, ExitStack() as stack:
        for stream in (True, False) * 4:
            stack.enter_context(one.connect()).sendall(posted(chat(stream=stream)))
        one.health()
        start = time.monotonic()
        one.process.terminate()
        one.process.wait(30)
        assert time.monotonic() - start < 10  # which is promised


def whole(reply: bytes) -> bool:
    head, end, body = reply.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return bool(end) and length.isdigit() and len(body) >= int(length)


class Watch(threading.Thread):
    """Asks after the gateway's health all the time."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self._gateway, self._over = gateway, threading.Event()
        self.slowest = 0.0

    def run(self) -> None:
        while not self._over.wait(0.02):
            self.slowest = max(self.slowest, self._gateway.health())

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def chunked(body: bytes) -> bytes:
    blocks = (body[start : start + 65536] for start in range(0, len(body), 65536))
    return b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "attack",
    [
        HEAD + b"Content-Length: %d\r\n\r\n" % (28 << 20) + b"[" + b"[]," * (28 << 18),
        HEAD + b"Content-Length: %d\r\n\r\n" % len(EMPTY_LISTS) + EMPTY_LISTS,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(EMPTY_LISTS),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"[" + b"[]," * (28 << 18)),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n[\r\n" * 500_000,
    ],
    ids=["28 MiB of lists", "lists", "lists in chunks", "28 MiB of lists in chunks", "chunks of a byte"],
)
def test_a_body_is_bounded_before_objects_are_made_of_it(gateway, attack):
    with Watch(gateway) as watch:
        replies = [gateway.say(attack) for _ in range(3)]
    assert all(b" 413 " in reply[:20] or not reply for reply in replies)  # a reset may overtake the reply
    assert watch.slowest < 1
    assert gateway.most_memory < 200


def test_silent_connections_beyond_the_files_of_the_process(gateway):
    with ExitStack() as stack, Watch(gateway) as watch:
        for _ in range(2 * FILES):
            stack.enter_context(gateway.connect())
        assert gateway.answers()
    assert watch.slowest < 1


def test_bodies_that_never_end_hold_no_place(gateway):
    with ExitStack() as stack, Watch(gateway) as watch:
        for _ in range(100):  # 64 may be answered at a time
            peer = stack.enter_context(gateway.connect())
            peer.sendall(HEAD + b"Content-Length: 3500000\r\n\r\n" + b'"' * 200_000)
        assert gateway.answers()
    assert watch.slowest < 1
    assert gateway.most_memory < 200


def posted(body: bytes, path: bytes = b"/v1/chat/completions", extra_headers: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n%b" % (
        path,
        extra_headers,
        len(body),
        body,
    )


def chat(**changes: object) -> bytes:
    return json.dumps({"model": "agentlab", "messages": [{"role": "user", "content": "hi"}], **changes}).encode()


BODIES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"',
    b"\x00",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a":' * 5_000,
    b"9" * 100_000,
    b"-" + b"1" * 5_000,
    b'{"model": 1e999}',
    b'{"model": NaN}',
    b'{"model": "\\ud800"}',
    b'{"model":"a","model":"b"}',
    GOOD + b"x",
    GOOD[:-1],
    chat(messages=None),
    chat(messages={}),
    chat(messages=[None] * 1000),
    chat(messages=[{"role": "user", "content": [[]] * 1000}]),
    chat(messages=[{"role": "user", "content": "\x00\U0010ffff" * 1000}]),
    chat(messages=[{"role": "tool", "tool_call_id": "x", "content": "y"}]),
    chat(model="\x00"),
    chat(model="x" * 100_000),
    chat(model=["agentlab"]),
    chat(temperature=10**400),
    chat(temperature="hot"),
    chat(max_tokens=10**400),
    chat(max_tokens=-1),
    chat(max_tokens=1.5),
    chat(seed=2**64),
    chat(seed=True),
    chat(stop=["x"] * 10_000),
    chat(stop={"a": 1}),
    chat(stream="maybe"),
    chat(stream=True, stream_options={"include_usage": "x"}),
    chat(tools=[{}] * 200),
    chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/a"}}}]),
    chat(tool_choice={"type": "function", "function": []}),
    chat(tool_choice=[[]]),
    chat(response_format={"type": "json_schema", "json_schema": {"schema": {"$ref": "http://127.0.0.1:9/"}}}),
    chat(response_format={"type": "json_schema", "json_schema": {"schema": {"$ref": "#"}}}),
    chat(response_format={"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}}),
    chat(response_format={"type": "json_schema", "json_schema": {"schema": {"pattern": "(a+)+$"}}}),
    chat(response_format={"type": "json_schema", "json_schema": {"schema": {"minimum": 10**400}}}),
    chat(response_format=[]),
    chat(metadata=[[[]]] * 1000),
    chat(logit_bias={"1": 2}),
    chat(**{"\ud800": 1}),
]
OTHERS = [
    (b"/v1/responses", b'{"model":"agentlab","input":' + each + b"}")
    for each in (b"7", b"[]", b"[[]]", b"{}", b'[{"type":"\\u0000"}]', b'[{"type":["message"]}]', b'[{"role":"user"}]')
] + [
    (b"/v1/completions", b'{"model":"agentlab","prompt":' + each + b"}")
    for each in (b"7", b"[1,2]", b"null", b'["a","b"]', b'[["a"]]')
] + [
    (b"/v1/embeddings", b'{"model":"agentlab","input":' + each + b"}")
    for each in (b'"a"', b"[]", b"[[1]]", b'["a"],"dimensions":1e9', b'"a","dimensions":-1', b'"a","encoding_format":7')
]  # fmt: skip
RAW = [
    b"",
    b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET /health HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    b"GET /%00%ff%f0%9f HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/models/%2e%2e%2f%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/models?\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX\x00: y\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Agentlab-Hop: \xff,,,\r\n\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"DELETE /v1/responses/resp_1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"PUT /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
    b"HEAD /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200,
    posted(GOOD, extra_headers=b"X-Agentlab-Hop: nonsense\r\n"),
    posted(GOOD, extra_headers=b"Transfer-Encoding: chunked\r\n"),
    posted(GOOD, extra_headers=b"Content-Encoding: gzip\r\n"),
    posted(GOOD, extra_headers=b"Expect: 100-continue\r\n"),
    posted(GOOD) + b"garbage\r\n\r\n",
    posted(GOOD, b"/v1/nothing"),
    HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    HEAD + b"Content-Length: 1e3\r\n\r\n",
    HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"x" * 100_000 + b"\r\nhello\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
]


def test_nothing_that_is_sent_is_answered_by_a_bug(gateway):
    """Some 110 requests: never a 500 or a traceback, and afterwards it is as quick as before."""
    requests = [*RAW, *(posted(body) for body in BODIES), *(posted(body, path) for path, body in OTHERS)]
    assert len(requests) >= 100
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(partial(gateway.say, wait=0.5), requests))
    for request, reply in zip(requests, replies, strict=True):
        assert b"Traceback" not in reply
        assert not reply or (reply.startswith(b"HTTP/1.1 ") and b" 500 " not in reply[:20]), (
            request[:200],
            reply[:200],
        )
    assert sum(map(whole, replies)) > 90  # most of them are told what is wrong
    slowly = [GOOD[start : start + 9] for start in range(0, len(GOOD), 9)]
    assert gateway.say(HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD), *slowly, pause=0.02).startswith(
        b"HTTP/1.1 200"
    )
    assert gateway.answers()
    assert gateway.health() < 1
    assert gateway.most_memory < 200
