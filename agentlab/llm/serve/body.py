"""The body of a request: within bounds of size, of parts and of all bodies together, before anything is made of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from agentlab.errors import LLMCancelledError
from agentlab.llm.serve.faults import RefusedError

LARGEST = 4 << 20  # bytes of a body: some million tokens
MOST_PARTS = 50_000  # values, keys and strings of a body; each becomes an object of some 50 to 500 bytes
_SMALL = 128 << 10  # bytes of a body that are always taken
_ROOM = 8 << 20  # bytes of all other bodies together
_CLOSE = {"Connection": "close"}  # the rest of a body that is refused is not read
_BUSY_SECONDS = 1


class Bodies:
    """Reads the bodies of all requests. Belongs to one event loop."""

    def __init__(self) -> None:
        self._left = _ROOM
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def tree(self, request: Request) -> AsyncIterator[Any]:
        """What a body holds as JSON, while it is in use. How long a client may take is its connection's matter.

        Raises:
            RefusedError: it is too large, has too many parts, or is no JSON; there is no room for it now.
            LLMCancelledError: the client left.
        """
        body, taken = bytearray(), 0
        try:
            _check_size(int(request.headers.get("content-length") or 0))
            try:
                async with aclosing(request.stream()) as stream:
                    async for block in stream:
                        body += block
                        _check_size(len(body))
                        taken += self._take(len(body) - _SMALL - taken)
            except ClientDisconnect:
                raise LLMCancelledError("The client left.") from None
            async with self._turn:
                await asyncio.sleep(0)  # others are heard between two bodies, each of which takes its time
                tree = _parsed(body)
            body.clear()
            yield tree
            del tree
        finally:
            self._left += taken

    def _take(self, more: int) -> int:
        """Take room for `more` bytes, if that is above 0."""
        more = max(0, more)
        if more > self._left:
            raise RefusedError(
                "Other large requests are being read; come back in a moment.",
                status=503,
                code="overloaded",
                headers={**_CLOSE, "Retry-After": str(_BUSY_SECONDS)},
            )
        self._left -= more
        return more


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise RefusedError(
            f"The body is larger than {LARGEST >> 20} MiB.", status=413, code="too_large", headers=_CLOSE
        )


def _parsed(body: bytearray) -> Any:
    if parts(body) > MOST_PARTS:
        raise RefusedError(f"The body has more than {MOST_PARTS:,} parts.", status=413, code="too_many_parts")
    try:
        return from_json(body, allow_inf_nan=False)  # which takes a depth of 200
    except ValueError as error:
        raise RefusedError(f"The body is not JSON: {error}.", code="invalid_json") from None


def parts(body: bytes | bytearray) -> int:
    """At most how many objects JSON becomes: its strings, and its brackets and commas outside of them.

    It is exact up to the first byte that is not JSON, where a parser ends anyway.
    """
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    strings = plain.count(b'"') // 2
    if strings > MOST_PARTS:
        return strings
    outside = b"".join(plain.split(b'"')[::2])
    return strings + sum(outside.count(mark) for mark in (b"[", b"{", b","))
