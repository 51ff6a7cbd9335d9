"""One request's connection: its body comes in within limits, and work for a client that has left is given up."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from agentlab.errors import LLMCancelledError
from agentlab.llm.serve.faults import RefusedError

T = TypeVar("T")

LARGEST_BODY = 32 << 20  # bytes
_BODY_SECONDS = 60.0  # for a client to send its request
_TAKE_SECONDS = 60.0  # for a client to take a piece of its answer
_LEFT = "The client left."


async def body_of(request: Request) -> bytes:
    """The body.

    Raises:
        RefusedError: it is larger than 32 MiB, or does not come within a minute.
        LLMCancelledError: the client left.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS), aclosing(request.stream()) as stream:
            async for block in stream:
                body += block
                if len(body) > LARGEST_BODY:
                    raise RefusedError(
                        f"The body is larger than {LARGEST_BODY >> 20} MiB.",
                        status=413,
                        code="too_large",
                        headers={"Connection": "close"},
                    )
    except TimeoutError:
        raise RefusedError("The body did not come in time.", status=408, code="timeout") from None
    except ClientDisconnect:
        raise LLMCancelledError(_LEFT) from None
    return bytes(body)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled as soon as the client leaves. The body has been read before.

    Raises:
        LLMCancelledError: the client left.
    """
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(_departure(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise LLMCancelledError(_LEFT)
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events as they come. Nothing is sent before the first, so that an error up to there is a status."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}, media_type="text/event-stream"
        )
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send the events while the client is there."""
        await unless_gone(receive, self._pump(send))

    async def _pump(self, send: Send) -> None:
        begun = False
        async with aclosing(self._events) as events:
            async for event in events:
                if not begun:
                    begun = True
                    head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                    await _send(send, head)
                await _send(send, {"type": "http.response.body", "body": event, "more_body": True})
        await _send(send, {"type": "http.response.body", "body": b"", "more_body": False})


async def _send(send: Send, message: Message) -> None:
    try:
        async with asyncio.timeout(_TAKE_SECONDS):
            await send(message)
    except TimeoutError:
        raise LLMCancelledError("The client takes nothing.") from None
