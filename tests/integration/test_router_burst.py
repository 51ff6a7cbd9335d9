"""Many calls at once against a real server that has few places: its refusals are our own load, and no sign of death."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agentlab.config.workspace import Workspace
from agentlab.llm.config import LLMConfig
from agentlab.llm.router import Router
from agentlab.llm.types import Message
from tests.unit.bench.mock.running import in_thread

# Clocks of tenths of a second are the subject here, and a machine that stops for as long is no fault of the router's.
pytestmark = pytest.mark.flaky(reruns=2, only_rerun=".")

ASK = (Message("user", "Count."),)
CALLS, BACKLOG = 50, 5
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    b'data: {"choices": [{"delta": {"content": "yes"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
)
RESET = struct.pack("ii", 1, 0)


def answered(peer: socket.socket, seconds: float) -> None:
    """Read a request, take so long, answer."""
    with peer:
        peer.settimeout(5)
        received = b""
        while b"Count." not in received and (block := peer.recv(65536)):
            received += block
        if received:
            time.sleep(seconds)
            peer.sendall(ANSWER)


@contextmanager
def listening(backlog: int) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
        yield listener


@contextmanager
def serving(listener: socket.socket, capacity: int, seconds: float) -> Iterator[None]:
    """Answer so many at a time. With one place the others wait in the backlog; with more they are reset."""
    slots, stopping = threading.Semaphore(capacity), threading.Event()

    def one(peer: socket.socket) -> None:
        try:
            answered(peer, seconds)
        except OSError:
            pass  # the client gave up waiting in the backlog
        finally:
            slots.release()

    def serve() -> None:
        while not stopping.is_set():
            if capacity == 1:
                slots.acquire()
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            if capacity > 1 and not slots.acquire(blocking=False):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                peer.close()
                continue
            threading.Thread(target=one, args=(peer,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def config_of(port: int, spare: str, connect: float = 0.4) -> LLMConfig:
    tree = {
        "providers": {
            "busy": {"kind": "openai_compat", "base_url": f"http://127.0.0.1:{port}/v1"},
            "spare": {"kind": "openai_compat", "base_url": spare},
        },
        "models": {"busy": {"provider": "busy", "id": "m"}, "spare": {"provider": "spare", "id": "ok-ttft3000-n1"}},
        "roles": {"primary": ["busy", "spare"]},
        "defaults": {"timeout": {"connect": connect, "first_token": 5, "total": 60}},
    }
    return LLMConfig.model_validate(tree, context={"env": {}})


@pytest.fixture(scope="module")
def spare() -> Iterator[str]:
    with in_thread() as server:
        yield server.url


def asked(config: LLMConfig, home: Workspace, calls: int) -> tuple[list[str], list[str], str]:
    """Who answered each of so many calls at once, every error, and the state of the busy model."""

    async def ask() -> tuple[list[str], list[str], str]:
        async with Router(config, env={}, workspace=home, in_callers_loop=True) as router:
            answers = await asyncio.gather(*(router.complete(ASK, "t", call_id=str(n)) for n in range(calls)))
            errors = [attempt.error for answer in answers for attempt in answer.attempts if attempt.error]
            return [answer.model for answer in answers], errors, router.guards["busy"].state(time.monotonic())

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("capacity", "seconds", "connect"), [(1, 0.03, 0.4), (6, 0.3, 5.0)], ids=["a small backlog", "resets beyond six"]
)
def test_a_burst_is_served_by_the_server_that_it_was_sent_to(tmp_path, spare, capacity, seconds, connect):
    home = Workspace(tmp_path, tmp_path / "cache")
    with listening(BACKLOG) as listener, serving(listener, capacity, seconds):
        models, errors, state = asked(config_of(listener.getsockname()[1], spare, connect), home, CALLS)
    assert models == ["busy"] * CALLS
    assert state == "closed"
    assert errors.count("HostBusyError") >= 0.9 * len(errors)


def test_a_dead_host_opens_its_breaker_at_once_however_many_ask(tmp_path, spare):
    home = Workspace(tmp_path, tmp_path / "cache")
    with listening(BACKLOG) as listener:
        port = listener.getsockname()[1]
    start = time.monotonic()
    models, errors, state = asked(config_of(port, spare), home, CALLS)
    assert models == ["spare"] * CALLS
    assert set(errors) == {"LLMConnectionError"}
    assert state != "closed"
    assert time.monotonic() - start < 3.0 + 9.0  # the spare takes three seconds; not fifty times a clock


def test_a_host_that_dies_under_load_is_left_soon(tmp_path, spare):
    """The first calls hold connections when it goes: those are cut, and the others find nobody."""
    home = Workspace(tmp_path, tmp_path / "cache")
    with listening(BACKLOG) as listener:
        port = listener.getsockname()[1]
        peers = []

        def die() -> None:
            for _ in range(3):
                peers.append(listener.accept()[0])
            time.sleep(0.2)
            listener.close()
            for peer in peers:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                peer.close()

        threading.Thread(target=die, daemon=True).start()
        start = time.monotonic()
        models, _, state = asked(config_of(port, spare), home, CALLS)
    assert models == ["spare"] * CALLS
    assert state != "closed"
    assert time.monotonic() - start < 3.0 + 15.0


def test_who_waits_too_long_for_a_place_is_answered_by_the_spare(tmp_path):
    """One place, a second and a half for each answer, four seconds for a call: the third and fourth would be lost."""
    with in_thread() as mock:
        tree = config_of(1, mock.url).model_dump()
        tree["providers"]["busy"] |= {"base_url": mock.url, "limits": {"concurrency": 1}}
        tree["models"]["busy"]["id"], tree["models"]["spare"]["id"] = "ok-ttft1500-n1", "ok-n1"
        tree["defaults"]["timeout"]["total"] = 4
        config = LLMConfig.model_validate(tree, context={"env": {}})
        models, errors, _ = asked(config, Workspace(tmp_path, tmp_path / "cache"), 4)
    assert set(models) == {"busy", "spare"}
    assert set(errors) == {"LLMTimeoutError"}
