"""What a client owes, it owes until a deadline; and how many connections there may be."""

import json
import socket
import time
from contextlib import ExitStack, suppress

import pytest

from agentlab.llm.serve import connection, run
from agentlab.llm.serve.run import listen, most_connections

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def peer(gateway, monkeypatch):
    """A raw connection to a gateway whose deadlines are short."""
    for owed in ("head", "body", "take"):
        monkeypatch.setitem(connection.SECONDS, owed, 0.3)
    client = gateway("ok")
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=5) as open_socket:
        yield open_socket


def rest(peer: socket.socket) -> bytes:
    """Everything until the gateway closes."""
    response = b""
    try:
        while block := peer.recv(1 << 16):
            response += block
    except ConnectionResetError:
        pass
    return response


def drip(peer: socket.socket) -> None:
    for _ in range(90):
        peer.sendall(b" ")
        time.sleep(0.02)


def code(response: bytes) -> tuple[int, str]:
    head, _, body = response.rpartition(b"\r\n\r\n")
    return int(head.rpartition(b"HTTP/1.1 ")[2][:3]), json.loads(body)["error"]["code"]


def test_silence_is_closed_without_a_word(peer):
    start = time.monotonic()
    assert rest(peer) == b""
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("fragment", [b"GET /hea", HEAD, HEAD + b"Content-Length: 100\r\n\r\n{", GET + b"GET /hea"])
def test_half_a_request_does_not_wait_for_ever(peer, fragment):
    peer.sendall(fragment)
    assert code(rest(peer)) == (408, "timeout")


def test_a_client_that_drips_is_no_faster(peer):
    peer.sendall(HEAD + b"Content-Length: 100\r\n\r\n")
    with pytest.raises(OSError):  # noqa: PT011 - reset or broken, as the moment will have it
        drip(peer)


def test_a_body_that_nobody_reads_ends_too(gateway, monkeypatch):
    """The token is wrong: the answer is there before the body, which the client goes on sending."""
    monkeypatch.setitem(connection.SECONDS, "body", 0.3)
    client = gateway("ok", env={"AGENTLAB_SERVE_TOKEN": "a-token"})
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=5) as peer:
        peer.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n")
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken, as the moment will have it
            drip(peer)


@pytest.mark.parametrize(("size", "status"), [(1, 413), (256, 400)])
def test_a_body_in_too_many_pieces(peer, size, status):
    piece = b"%x\r\n%b\r\n" % (size, b" " * size)
    with suppress(OSError):
        peer.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + piece * 2000 + b"0\r\n\r\n")
    assert int(peer.recv(20).split()[1]) == status


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000, 431),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET, 400),
    ],
)
def test_what_is_no_http_is_told_in_the_same_document(peer, request_, status):
    peer.sendall(request_)
    assert code(rest(peer)) == (status, "invalid_http")


def test_how_many_connections_the_files_of_the_process_allow():
    assert most_connections(64, 1024) == most_connections(64, 10**6) == 256 + 128
    assert 64 < most_connections(64, 512) < 384
    few = most_connections(64, 128)
    assert 0 < 3 * few <= 128  # each may be answered, which takes two more


@pytest.fixture
def deaf(gateway, monkeypatch, question):
    """A gateway with two places, and clients that ask for a stream and never read. The system holds little for them."""

    def small(settings):
        listener = listen(settings)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # as for every connection that it accepts
        return listener

    monkeypatch.setattr(run, "listen", small)
    client = gateway("ok-n2000", at_once=2)
    body = json.dumps(question(stream=True, max_tokens=4000)).encode()
    request = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    with ExitStack() as stack:
        for _ in range(4):
            peer = stack.enter_context(socket.socket())
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            peer.connect((client.base_url.host, client.base_url.port))
            peer.sendall(request)
        while metric(client, "in_flight") < 2:
            time.sleep(0.02)
        yield client


def metric(client, name: str) -> float:
    lines = client.get(client.base_url.join("/metrics")).text.splitlines()
    return next(float(line.split()[-1]) for line in lines if name in line and not line.startswith("#"))


def test_clients_that_never_read_make_room_for_others(deaf, ask):
    start = time.monotonic()
    while (reply := ask(deaf)).status_code == 503:
        assert time.monotonic() - start < 20  # far less than they have to take their answers
        time.sleep(0.1)
    assert reply.status_code == 200


def test_a_client_that_is_slow_and_steady_keeps_its_place(deaf, ask, monkeypatch):
    monkeypatch.setattr(connection, "_STUCK", 60.0)
    time.sleep(0.5)
    assert ask(deaf).status_code == 503
    assert metric(deaf, "in_flight") == 2
