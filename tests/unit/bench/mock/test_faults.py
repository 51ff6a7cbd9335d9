"""Failures happen exactly as the name says, and what arrived is known afterwards."""

import asyncio
import hashlib
import json
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from email.utils import parsedate_to_datetime
from itertools import pairwise

import httpx
import pytest

from agentlab.bench.mock.server import MockServer, in_process

Ask = Callable[..., httpx.Response]
BODY = {"model": "ok", "messages": [{"role": "user", "content": "hi"}]}


def contents(text: str) -> list[str]:
    """Tokens of a stream that may break off."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for line in data for choice in json.loads(line)["choices"]]
    return [delta["content"] for delta in deltas if delta.get("content")]


def stream(server: MockServer, client: httpx.Client, model: str) -> AbstractContextManager[httpx.Response]:
    return client.stream("POST", f"{server.url}/chat/completions", json={**BODY, "model": model, "stream": True})


def read_until_broken(server: MockServer, client: httpx.Client, model: str) -> tuple[str, type[Exception] | None]:
    """What came of a stream, and how it ended."""
    text = ""
    try:
        with stream(server, client, model) as reply:
            for piece in reply.iter_text():
                text += piece
    except httpx.HTTPError as error:
        return text, type(error)
    return text, None


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("500", 500, "api_error"),
        ("401", 401, "authentication_error"),
        ("404", 404, "not_found_error"),
        ("400-context", 400, "context_length_exceeded"),
        ("429-quota", 429, "insufficient_quota"),
        ("gpt-nothing", 404, "not_found_error"),
    ],
)
def test_error_replies(ask: Ask, model: str, status: int, code: str) -> None:
    reply = ask(model)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


def test_a_refused_key_is_quoted_as_some_providers_do(server: MockServer, client: httpx.Client) -> None:
    reply = client.post(
        f"{server.url}/chat/completions", json={**BODY, "model": "401"}, headers={"Authorization": "Bearer sk-secret"}
    )
    assert "sk-secret" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("model", "header", "value"),
    [
        ("429-ra2", "retry-after", "2"),
        ("429-ra9999", "retry-after", "9999"),
        ("429-rams1500", "retry-after-ms", "1500"),
        ("429-raneg", "retry-after", "-5"),
        ("429-ragarbage", "retry-after", "soon"),
    ],
)
def test_waiting_times_come_in_every_form(ask: Ask, model: str, header: str, value: str) -> None:
    assert ask(model).headers[header] == value


def test_a_date_lies_ahead_by_what_was_asked_or_a_second_more(ask: Ask) -> None:
    now = time.time()
    ahead = parsedate_to_datetime(ask("429-radate2").headers["retry-after"]).timestamp() - now
    assert 2 <= ahead < 4


def test_then(ask: Ask) -> None:
    assert [ask("429-ra2-then-ok").status_code for _ in range(3)] == [429, 200, 200]


@pytest.mark.parametrize(
    ("model", "tokens", "error"),
    [
        ("reset-40-of-60", 40, httpx.ReadError),
        ("close-40-of-60", 40, None),
        ("reset-0-of-60", 0, httpx.ReadError),
        ("ok-n60", 60, None),
    ],
)
def test_cut_streams(
    server: MockServer, client: httpx.Client, model: str, tokens: int, error: type[Exception] | None
) -> None:
    text, broken = read_until_broken(server, client, model)
    assert (len(contents(text)), broken) == (tokens, error)
    assert ('finish_reason":"stop' in text) == (model == "ok-n60")


@pytest.mark.parametrize("model", ["refuse", "reset-before"])
@pytest.mark.parametrize("stream", [False, True])
def test_reset_before_the_first_byte(ask: Ask, model: str, stream: bool) -> None:
    with pytest.raises(httpx.ReadError):
        ask(model, stream=stream)


@pytest.mark.parametrize(("model", "bytes_first"), [("silence", False), ("stall-after-3", True)])
def test_silence_lasts(server: MockServer, model: str, bytes_first: bool) -> None:
    with httpx.Client(trust_env=False, timeout=0.2) as client:
        text, broken = read_until_broken(server, client, model)
    assert broken is httpx.ReadTimeout
    assert bool(text) == bytes_first
    assert len(contents(text)) == (3 if bytes_first else 0)


def test_comments_go_on_but_no_token_comes(server: MockServer, client: httpx.Client) -> None:
    until = time.monotonic() + 0.3
    text = ""
    with stream(server, client, "comments-only") as reply:
        for piece in reply.iter_text():
            text += piece
            if time.monotonic() > until:
                break
    assert text.count(": still here") >= 5
    assert contents(text) == []


def test_drip_is_never_idle_and_slow(server: MockServer, client: httpx.Client) -> None:
    until, pieces = time.monotonic() + 0.3, []
    with stream(server, client, "drip-itl10") as reply:
        for piece in reply.iter_raw():
            pieces.append(piece)
            if time.monotonic() > until:
                break
    assert len(b"".join(pieces[2:])) < 60
    assert b'"content":"0"' in b"".join(pieces)


def test_replies_that_are_not_what_was_asked_for(ask: Ask) -> None:
    assert ask("html", stream=True).headers["content-type"] == "text/html"
    assert ask("document", stream=True).json()["choices"][0]["message"]["content"].startswith("0 1")
    assert ask("empty").json()["choices"][0]["message"]["content"] is None
    assert ask("error-event").json()["error"]["code"] == "api_error"
    assert '"code":502' in ask("error-event", stream=True).text
    with pytest.raises(json.JSONDecodeError):
        ask("badjson-5").json()


def test_one_broken_event_among_good_ones(ask: Ask) -> None:
    lines = [line for line in ask("badjson-5", stream=True).text.splitlines() if line.startswith("data: {")]
    broken = [number for number, line in enumerate(lines) if not line.endswith("}")]
    assert broken == [6]  # the role comes first


def test_oversized_replies(server: MockServer, client: httpx.Client, ask: Ask) -> None:
    assert max(map(len, ask("hugeline", stream=True).text.splitlines())) > 5_000_000
    with client.stream("POST", f"{server.url}/chat/completions", json={**BODY, "model": "huge"}) as reply:
        assert int(reply.headers["content-length"]) == 200_000_000
        assert len(next(reply.iter_raw())) > 0


def test_what_arrived_is_known(server: MockServer, client: httpx.Client) -> None:
    body = json.dumps(BODY).encode()
    before = time.monotonic()
    client.post(f"{server.url}/chat/completions", content=body)
    client.post(f"{server.url}/chat/completions", content=body, headers={"Authorization": "Bearer x"})
    seen = client.get(f"{server.origin}/__seen").json()["models"]["ok"]
    assert (seen["count"], seen["finished"], seen["left"]) == (2, 2, [])
    assert {arrival["sha256"] for arrival in seen["arrivals"]} == {hashlib.sha256(body).hexdigest()}
    assert [arrival["key"] for arrival in seen["arrivals"]] == [False, True]
    assert before < seen["arrivals"][0]["at"] < seen["arrivals"][1]["at"] < time.monotonic()
    client.post(f"{server.origin}/__reset")
    assert server.seen()["models"] == {}


def test_a_client_that_leaves_is_noticed(server: MockServer) -> None:
    with httpx.Client(trust_env=False, timeout=0.1) as client:
        read_until_broken(server, client, "silence")
    departure_time = time.monotonic()
    while not server.seen()["models"]["silence"]["left"]:
        assert time.monotonic() < departure_time + 2
        time.sleep(0.01)
    assert server.seen()["connections"]["open"] == 0


def test_tokens_come_on_a_clock_that_does_not_drift(server: MockServer, client: httpx.Client) -> None:
    """Token k at ttft + k * itl: sums of sleeps would be late by the sum of their errors."""
    came: list[float] = []
    with stream(server, client, "ok-ttft50-itl5-n60") as reply:
        for piece in reply.iter_text():
            came += [time.monotonic()] * len(contents(piece))
    accepted = server.seen()["models"]["ok-ttft50-itl5-n60"]["arrivals"][0]["at"]
    late = [moment - accepted - 0.05 - 0.005 * k for k, moment in enumerate(came)]
    assert len(late) == 60
    assert min(late) >= 0
    assert sorted(late)[30] < 0.05  # on a busy machine, too; a sum of 60 errors would be more
    assert all(b >= a for a, b in pairwise(came))


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /nowhere HTTP/1.1\r\n\r\n", b"404"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: many\r\n\r\n", b"400"),
        (b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
        (b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]", b"400"),
        (b"x" * 70_000, b"431"),
    ],
)
def test_nonsense_is_refused(server: MockServer, sent: bytes, status: bytes) -> None:
    port = int(server.origin.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=2) as peer:
        peer.sendall(sent)
        assert peer.recv(100).split(b" ")[1] == status


def test_requests_in_pieces_and_in_one(server: MockServer) -> None:
    content = json.dumps(BODY).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(content) + content
    with socket.create_connection(("127.0.0.1", int(server.origin.rpartition(":")[2])), timeout=2) as peer:
        for start in range(0, len(request), 7):
            peer.sendall(request[start : start + 7])
        peer.sendall(request * 2)
        received = b""
        while received.count(b"HTTP/1.1 200") < 3 or not received.endswith(b"}}"):
            received += peer.recv(65536)
    assert server.seen()["models"]["ok"]["count"] == 3


def test_a_process_of_its_own_ends_with_its_caller() -> None:
    with in_process() as url, httpx.Client(trust_env=False) as client:
        assert client.post(f"{url}/chat/completions", json=BODY).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/models", trust_env=False)


async def _served_here() -> int:
    async with MockServer() as server, httpx.AsyncClient(trust_env=False) as client:
        return (await client.post(f"{server.url}/chat/completions", json=BODY)).status_code


def test_on_the_running_loop() -> None:

    assert asyncio.run(_served_here()) == 200
