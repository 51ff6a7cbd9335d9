"""Who is let in, and with what. Everything that reaches the routes has passed here, and every error ends here."""

import asyncio
import hmac
import logging
import re
import secrets
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentlab.errors import AgentlabError, LLMCancelledError
from agentlab.llm import via
from agentlab.llm.provider_config import is_loopback
from agentlab.llm.serve.call import encode_json
from agentlab.llm.serve.faults import Fault, RefusedError, fault_of, internal
from agentlab.llm.serve.metrics import GatewayMetrics
from agentlab.runs.redact import Redactor

LOG = logging.getLogger("agentlab.llm.serve")
HEALTH = "/health"
_BUSY_SECONDS = 1
LARGEST = 4 << 20  # bytes of a body: some million tokens
MOST_PARTS = 50_000  # values, keys and strings of a body; each becomes an object of some 50 to 500 bytes
_SMALL = 128 << 10  # bytes of a body that are always taken
_ROOM = 8 << 20  # bytes of all other bodies together
# A host, by name or address, and a port. RFC 9110 allows a Host header more, which no client sends.
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9._-]{0,252}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?")
_CLOSE = {"Connection": "close"}  # the rest of a body that is refused is not read


class Bodies:
    """Reads the bodies of all requests: within bounds of size, of parts and of all together, before they are parsed.

    Belongs to one event loop.
    """

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
        body, reserved_bytes = bytearray(), 0
        try:
            _check_size(int(request.headers.get("content-length") or 0))
            try:
                async with aclosing(request.stream()) as stream:
                    async for block in stream:
                        body += block
                        _check_size(len(body))
                        reserved_bytes += self._take(len(body) - _SMALL - reserved_bytes)
            except ClientDisconnect:
                raise LLMCancelledError("The client disconnected.") from None
            async with self._turn:
                await asyncio.sleep(0)  # others are heard between two bodies, each of which takes its time
                tree = _parse_body(body)
            body.clear()
            yield tree
            del tree
        finally:
            self._left += reserved_bytes

    def _take(self, extra_bytes: int) -> int:
        """Take room for `extra_bytes` bytes, if that is above 0."""
        extra_bytes = max(0, extra_bytes)
        if extra_bytes > self._left:
            raise RefusedError(
                "Other large requests are being read; retry in a moment.",
                status=503,
                code="overloaded",
                headers={**_CLOSE, "Retry-After": str(_BUSY_SECONDS)},
            )
        self._left -= extra_bytes
        return extra_bytes


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise RefusedError(
            f"The body is larger than {LARGEST >> 20} MiB.", status=413, code="too_large", headers=_CLOSE
        )


def _parse_body(body: bytearray) -> Any:
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


@dataclass(frozen=True, slots=True)
class GatewayRules:
    """What is let in."""

    token: str | None  # what `Authorization: Bearer` has to hold; None lets everybody in who reaches the socket
    local: bool  # the socket listens on loopback only, so that only pages of this machine's own may name it
    at_once: int  # requests that may be answered at a time
    # Gives up a request whose client does not take the answer; whether there was one.
    make_room: Callable[[], bool] = lambda: False
    # Of this gateway, among those that lead to each other.
    mark: str = field(default_factory=lambda: secrets.token_hex(8))


def fault_response(fault: Fault) -> Response:
    """The document of an error as a reply."""
    return Response(encode_json(fault.document), fault.status, dict(fault.headers), "application/json")


class Gate:
    """ASGI middleware: origin, token, circle, body, capacity; and the boundary of errors.

    The routes find what a body holds as `request.state.tree`.
    """

    def __init__(self, app: ASGIApp, rules: GatewayRules, metrics: GatewayMetrics, redactor: Redactor) -> None:
        self._app = app
        self._rules = rules
        self._metrics = metrics
        self._redactor = redactor
        self._bodies = Bodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        has_begun = False

        async def note_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._admit_request(scope, receive, note_send)
        except asyncio.CancelledError:  # the server stops, and has waited long enough
            if not has_begun:
                fault = fault_of(LLMCancelledError("The gateway is shutting down."), self._redactor)
                await fault_response(fault)(scope, receive, send)
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: a client must never see more than a document
            if isinstance(error, AgentlabError):
                fault = fault_of(error, self._redactor)
            else:
                LOG.error("A request failed: %s", self._redactor.scrub(traceback.format_exc()))
                fault = internal()
            if not has_begun:
                await fault_response(fault)(scope, receive, send)

    async def _admit_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self._check_origin(headers)
        if scope["path"] != HEALTH:
            self._check_token(headers)
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        self._check_circle(headers)
        # before it counts as a request: whoever sends slowly holds nothing but a connection
        async with self._bodies.tree(Request(scope, receive)) as tree:
            scope["state"]["tree"] = tree
            try:
                await self._answer_request(scope, receive, send)
            finally:
                del scope["state"]["tree"], tree  # the connection keeps the scope until its next request

    async def _answer_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._metrics.in_flight >= self._rules.at_once and not self._rules.make_room():
            raise RefusedError(
                f"{self._rules.at_once} requests are in flight, which is the limit.",
                status=503,
                code="overloaded",
                headers={"Retry-After": str(_BUSY_SECONDS)},
            )
        self._metrics.in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._metrics.in_flight -= 1

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        """A page of somebody else's in a browser on this machine must not ask: not even one that has bent its name."""
        host = headers.get("host", "").lower()
        if host and not _HOST.fullmatch(host):
            raise RefusedError("The Host header is not a host and port.", status=403, code="foreign_host")
        if self._rules.local and not is_loopback(f"http://{host}"):
            raise RefusedError("The Host header does not name this machine.", status=403, code="foreign_host")
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"http://{host}":
            raise RefusedError("Requests from other origins are refused.", status=403, code="foreign_origin")

    def _check_token(self, headers: Mapping[str, str]) -> None:
        if self._rules.token is None:
            return
        scheme, _, client_token = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(client_token.strip().encode("utf-8"), self._rules.token.encode("utf-8"))
        if scheme.lower() != "bearer" or not right:
            raise RefusedError(
                "The gateway requires its token, as `Authorization: Bearer ...`.",
                status=401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _check_circle(self, headers: Mapping[str, str]) -> None:
        try:
            passed = via.marks(headers.get(via.HEADER, ""))
        except ValueError as error:
            raise RefusedError(f"{error}.", code="invalid_header") from None
        if self._rules.mark in passed or len(passed) >= via.MOST:
            raise RefusedError(
                "The request came back to this gateway: its models form a loop.", status=508, code="circle"
            )
        via.enter((*passed, self._rules.mark))
