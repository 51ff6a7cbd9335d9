"""Many requests at a time: each has a connection of its own, and hands it to the next."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from agentlab.errors import LLMConnectionError
from agentlab.llm.config import Timeout
from agentlab.llm.transport import Transport
from agentlab.llm.types import WIRE, WireTimes

AT_ONCE = 64
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class Server:
    """Counts its connections; answers nobody before as many as `waits_for` have asked."""

    waits_for: int
    connections: int = 0

    def __post_init__(self) -> None:
        self.asked = 0
        self.enough = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
                await reader.readexactly(int(length.split(b":")[1]))
                self.asked += 1
                if self.asked >= self.waits_for:
                    self.enough.set()
                await self.enough.wait()
                writer.write(REPLY)
        except asyncio.IncompleteReadError:  # the client is done
            writer.close()


@asynccontextmanager
async def serving(waits_for: int) -> AsyncIterator[tuple[Server, Transport]]:
    server = Server(waits_for)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    transport = Transport(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", Timeout(first_token=20), {})
    try:
        yield server, transport
    finally:
        await transport.close()
        listening.close()
        await listening.wait_closed()


async def ask(transport: Transport) -> bytes:
    async with transport.post("/chat/completions", {}) as reply:
        return await reply.document()


def in_loop(work: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(30):
            await work()

    asyncio.run(run())


def test_64_at_a_time_do_not_wait_for_each_other_and_connections_are_used_again() -> None:
    async def work() -> None:
        async with serving(waits_for=AT_ONCE) as (server, transport):
            for _ in range(3):
                assert await asyncio.gather(*(ask(transport) for _ in range(AT_ONCE))) == [b"{}"] * AT_ONCE
                assert server.connections == AT_ONCE
            assert server.asked == 3 * AT_ONCE

    in_loop(work)


def test_one_at_a_time_needs_one_connection() -> None:
    async def work() -> None:
        async with serving(waits_for=1) as (server, transport):
            for _ in range(20):
                await ask(transport)
            assert (server.asked, server.connections) == (20, 1)

    in_loop(work)


class Leaver:
    """Answers the first request of a connection, and closes it `after` seconds after the next one came, or at once."""

    def __init__(self, after: float | None) -> None:
        self.after = after
        self.asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._read(reader)
        writer.write(REPLY)
        if self.after is not None:
            await self._read(reader)
            await asyncio.sleep(self.after)
        writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
        self.asked += 1


async def asked_twice(server: Leaver) -> None:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    transport = Transport(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", Timeout(), {})
    try:
        for _ in range(2):
            assert await ask(transport) == b"{}"
    finally:
        await transport.close()
        listening.close()


def test_a_kept_connection_that_the_server_closed_is_no_error() -> None:
    for after in (None, 0.0):  # before the next request, and at the moment when it comes
        in_loop(lambda after=after: asked_twice(Leaver(after)))  # type: ignore[misc] # bound at once


def test_a_request_that_the_server_may_have_worked_on_is_not_repeated() -> None:
    server = Leaver(after=0.8)
    with pytest.raises(LLMConnectionError):
        in_loop(lambda: asked_twice(server))
    assert server.asked == 2


def test_a_benchmark_hears_when_its_request_left_and_when_the_reply_was_read():
    """Also on a connection that stands already; what the client did before the sending is not in it."""

    async def listen() -> list[WireTimes]:
        wires = []
        async with serving(1) as (_, transport):
            for _ in range(2):
                WIRE.set(wire := WireTimes())
                await ask(transport)
                wires.append(wire)
        return wires

    first, second = asyncio.run(listen())
    assert first.sent < first.came <= second.sent < second.came
