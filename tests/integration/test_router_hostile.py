"""What servers and proxies really send: some two hundred faults over loopback, each with a healthy model behind it.

Whatever the first model sends, the caller gets an answer, and what went wrong is an error of the table, never a bug.
"""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentlab import errors
from agentlab.config.workspace import Workspace
from agentlab.errors import LLMTruncatedError, RemoteError
from agentlab.llm.config import LLMConfig
from agentlab.llm.options import Options
from agentlab.llm.router import Router
from agentlab.llm.types import Attempt, Message

# Clocks of tenths of a second are the subject here, and a machine that stops for as long is no fault of the router's.
pytestmark = pytest.mark.flaky(reruns=2, only_rerun=".")

ASK = (Message("user", "Which city?"),)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
FINE = {"choices": [{"message": {"content": '{"city": "Paris"}'}, "finish_reason": "stop"}]}
AT_ONCE = 32
STALL = b"<stall>"  # stands for half a minute of silence
Send = Callable[[asyncio.StreamWriter], Awaitable[None]]


def http(body: bytes, head: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    return f"HTTP/1.1 {head}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


def said(document: Any) -> bytes:
    return http(json.dumps(document).encode())


def events(*data: Any) -> bytes:
    return STREAM + b"".join(
        b"data: %b\n\n" % (event if isinstance(event, bytes) else json.dumps(event).encode()) for event in data
    )


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": fields}]}


HALF = delta(content="half ")
SHAPES: dict[str, bytes] = {
    "nothing": b"",
    "page": b"<html><h1>Oops</h1></html>",
    "object": b'{"error": {"message": "no", "type": "t", "code": "c"}}',
    "text": b'{"error": "no"}',
    "list": b'[{"error": {"message": "no"}}]',
    "odd": b'{"error": {"message": ["no"], "code": 1e400, "type": {}}}',
    "bytes": b"\xff\xfe\x00n\x00o",
    "deep": b"[" * 30_000,
}
STATUSES = (400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 411, 413, 414, 415, 418, 421, 422, 423, 425, 426, 428)
STATUSES += (429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 507, 508, 511, 520, 522, 524, 529, 530, 599)
ERRORS = {
    f"{status} {shape}": http(SHAPES[shape], f"{status} X")
    for place, status in enumerate(STATUSES)
    for shape in (list(SHAPES)[place % len(SHAPES)], list(SHAPES)[(place + 3) % len(SHAPES)])
}
HEADS: dict[str, bytes] = {
    "a TLS alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "another protocol": b"SSH-2.0-OpenSSH_9.7\r\n",
    "nothing": b"",
    "half a status line": b"HTTP/1.1",
    "an unknown version": b"HTTP/9.9 200 OK\r\n\r\n",
    "a status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "status 99": b"HTTP/1.1 99 X\r\n\r\n",
    "status 999": http(b"{}", "999 X"),
    "status 204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "status 206": http(b'{"choices"', "206 Partial Content"),
    "switching protocols": b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "continue, and nothing": b"HTTP/1.1 100 Continue\r\n\r\n" + STALL,
    "an early hint, and the end": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "a head that stops": b"HTTP/1.1 200 OK\r\nContent-Type: text/ev" + STALL,
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 20_000,
    "a header of 300 KB": b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 300_000 + b"\r\n\r\n",
    "a header with NUL": b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\n\r\n{}",
    "a header without colon": b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length below zero": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
    "a length of letters": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n{}",
    "a length of 5,000 digits": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
    "less than its length": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{}",
    "an unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx",
    "a chunk of letters": STREAM.replace(b"Connection: close", b"Transfer-Encoding: chunked") + b"zz\r\nhello\r\n",
    "a chunk of 2^80": STREAM.replace(b"Connection: close", b"Transfer-Encoding: chunked") + b"f" * 20 + b"\r\nhello",
    "a chunk cut off": STREAM.replace(b"Connection: close", b"Transfer-Encoding: chunked") + b"20\r\ndata: {",
    "an event stream that is gzip": http(gzip.compress(b"data: {}\n\n"), more="Content-Encoding: gzip\r\n"),
    "garbage that says gzip": http(b"\x1f\x8b\x08garbage", more="Content-Encoding: gzip\r\n"),
    "garbage that says br": http(b"\x00\x01\x02", more="Content-Encoding: br\r\n"),
    "gzip that does not say so": http(gzip.compress(json.dumps(FINE).encode())),
    "UTF-16": http(json.dumps(FINE).encode("utf-16")),
    "a type of odd bytes": b"HTTP/1.1 200 OK\r\nContent-Type: \xff\xfe\r\nContent-Length: 2\r\n\r\n{}",
    "silence": STALL,
    **{
        f"{status} to {place!r}": http(b"", f"{status} Moved", more=f"Location: {place}\r\n" if place else "")
        for status in (301, 302, 303, 307, 308)
        for place in ("", "/", "http://127.0.0.1:1/", "https://[", "javascript:x")
    },
    "300 and a body": http(b"{}", "300 Choices"),
    "304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "wait 5,000 digits": http(b"{}", "429 X", more=f"Retry-After: {'9' * 5000}\r\n"),
    "wait until never": http(b"{}", "429 X", more="Retry-After: Fri, 31 Dec 99999 23:59:59 GMT\r\n"),
    "wait nan": http(b"{}", "503 X", more="Retry-After-Ms: nan\r\n"),
}
BODIES: dict[str, bytes] = {
    **{
        f"{text[:20]!r}": http(text)
        for text in (b"", b"{}", b"[]", b"null", b"1", b'"x"', b"{", b"NaN", b"\xff\xfe", b"[" * 99_999)
    },
    "choices of an object": said({"choices": {"a": 1}}),
    "no choice": said({"choices": []}),
    "a choice of null": said({"choices": [None]}),
    "a message of text": said({"choices": [{"message": "Paris", "finish_reason": "stop"}]}),
    "content of a number": said({"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]}),
    "content of numbers": said({"choices": [{"message": {"content": [{"text": 5}]}, "finish_reason": "stop"}]}),
    "content of nothing": said({"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}),
    "no finish": said({"choices": [{"message": {"content": "half "}}]}),
    "a number of 5,000 digits": http(b'{"choices": ' + b"9" * 5000 + b"}"),
    "an error of numbers": said({"error": 5}),
    "an error of code 5,000 digits": said({"error": {"code": "9" * 5000}}),
    "an error of code ²": said({"error": {"code": "²³"}}),
    "an error of lists": said({"error": {"code": [], "type": [], "message": []}}),
    "calls of text": said({"choices": [{"message": {"tool_calls": "x"}, "finish_reason": "stop"}]}),
    "a call of numbers": said({"choices": [{"message": {"tool_calls": [{"id": 1}]}, "finish_reason": "stop"}]}),
    "a page": http(b"<html>Sign in</html>", kind="text/html"),
    "an endless document": http(b" ", "200 OK").replace(b"Content-Length: 1", b"Content-Length: 99") + STALL,
}
STREAMS: dict[str, bytes] = {
    "no event": STREAM,
    "only the end": events(b"[DONE]"),
    "only comments": STREAM + b": hi\n\n" * 50,
    "a document as a stream": STREAM + json.dumps(FINE).encode(),
    "an event that is no JSON": events(b"{half"),
    "an event of a list": events([1]),
    "an event of 5,000 digits": events(b"9" * 5000),
    "an event of odd bytes": events(b"\xff\xfe"),
    "a deep event": events(b"[" * 50_000),
    "an event of a megabyte": events(b'{"a": "' + b"x" * 1_000_000 + b'"}'),
    "no line end": STREAM + b"data: " + b"x" * 600_000,
    "choices of a number": events({"choices": 5}),
    "a delta of text": events({"choices": [{"delta": "x"}]}),
    "an error": events({"error": {"message": "no", "code": 502}}),
    "a finish that says error": events({"choices": [{"delta": {}, "finish_reason": "error"}]}),
    "calls with an index of text": events(delta(tool_calls=[{"index": "a", "function": {"name": 5}}])),
    "calls with an index of 10^30": events(delta(tool_calls=[{"index": 10**30, "function": {"arguments": 5}}])),
    "silence": STREAM + STALL,
    "half, and the end": events(HALF),
    "half, and silence": events(HALF) + STALL,
    "half, and rubbish": events(HALF, b"}{"),
    "half, and an error": events(HALF, {"error": {"message": "overloaded", "type": "overloaded_error"}}),
    "half, and another type": events(HALF, delta(content={"a": 1})),
}
FAULTS = {"errors": ERRORS, "heads": HEADS, "bodies": BODIES, "streams": STREAMS}


@asynccontextmanager
async def serving(faults: Mapping[str, bytes]) -> AsyncIterator[str]:
    """Sends a fault to who asks for its name, and an answer to who asks for `healthy`."""
    stopping = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            name = json.loads(await reader.readexactly(int(length.split(b":")[1])))["model"]
            sent = said(FINE) if name == "healthy" else faults[name]
            writer.write(sent.removesuffix(STALL))
            await writer.drain()
            if sent.endswith(STALL):
                await stopping.wait()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has left
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        stopping.set()
        server.close()


def config_of(url: str, fault: str) -> LLMConfig:
    provider = {"kind": "openai_compat", "base_url": url}
    tree = {
        "providers": {"bad": provider, "good": provider},
        "models": {"bad": {"provider": "bad", "id": fault}, "good": {"provider": "good", "id": "healthy"}},
        "roles": {"primary": ["bad", "good"]},
        "defaults": {"timeout": {"connect": 5, "first_token": 1.5, "idle": 1.5, "total": 60}, "retries": 0},
        "ledger": {"enabled": False},
    }
    return LLMConfig.model_validate(tree, context={"env": {}})


Ask = Callable[[Router], Awaitable[tuple[Attempt, ...]]]


def each_fault(faults: Mapping[str, bytes], home: Workspace, ask: Ask) -> dict[str, str]:
    """What is wrong with how each fault came out, by its name."""
    wrong: dict[str, str] = {}

    async def one(url: str, name: str, slots: asyncio.Semaphore) -> None:
        async with slots, Router(config_of(url, name), env={}, workspace=home, in_callers_loop=True) as router:
            try:
                attempts = await ask(router)
            except Exception as error:  # noqa: BLE001 - every fault is told, whatever one of them does
                wrong[name] = repr(error)
                return
        for attempt in attempts[:-1]:
            kind = getattr(errors, attempt.error or "", None)
            if attempt.model != "bad" or kind is None or not issubclass(kind, RemoteError):
                wrong[name] = repr(attempt)
            elif "The provider failed" in attempt.message:  # what a bug comes out as
                wrong[name] = attempt.message

    async def all_of_them() -> None:
        slots = asyncio.Semaphore(AT_ONCE)
        async with serving(faults) as url:
            await one(url, next(iter(faults)), slots)  # imports: on a busy machine they take longer than the clocks
            wrong.clear()
            async with asyncio.TaskGroup() as group:
                for name in faults:
                    group.create_task(one(url, name, slots))

    asyncio.run(all_of_them())
    return wrong


@pytest.mark.parametrize("group", FAULTS)
def test_whatever_a_server_sends_the_next_model_answers(tmp_path, group):
    async def ask(router: Router) -> tuple[Attempt, ...]:
        answer = await router.complete(ASK, "t")
        assert (answer.model, answer.text) == ("good", '{"city": "Paris"}')
        return answer.attempts

    assert each_fault(FAULTS[group], Workspace(tmp_path, tmp_path / "cache"), ask) == {}


@pytest.mark.parametrize("group", ["errors", "bodies"])
def test_whatever_it_sends_to_who_wants_a_schema(tmp_path, group):
    async def ask(router: Router) -> tuple[Attempt, ...]:
        answer = await router.complete(ASK, "t", options=Options(json_schema=SCHEMA))
        assert (answer.model, answer.value) == ("good", {"city": "Paris"})
        return answer.attempts

    assert each_fault(FAULTS[group], Workspace(tmp_path, tmp_path / "cache"), ask) == {}


@pytest.mark.parametrize("group", FAULTS)
def test_who_listens_hears_one_answer_or_half_of_one_and_why(tmp_path, group):
    async def ask(router: Router) -> tuple[Attempt, ...]:
        live, text = router.stream(ASK, "t"), ""
        try:
            async for piece in live:
                text += piece.text
        except LLMTruncatedError:
            assert text == "half "
            return ()
        assert text == '{"city": "Paris"}'
        return live.completion.attempts

    assert each_fault(FAULTS[group], Workspace(tmp_path, tmp_path / "cache"), ask) == {}


def test_there_are_enough_of_them():
    assert sum(map(len, FAULTS.values())) > 150
