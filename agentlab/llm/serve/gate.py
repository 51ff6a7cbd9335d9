"""Who is let in, and with what. Everything that reaches the routes has passed here, and every error ends here."""

import asyncio
import hmac
import logging
import secrets
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentlab.errors import AgentlabError, LLMCancelledError
from agentlab.llm import hop
from agentlab.llm.endpoint import is_loopback
from agentlab.llm.serve.body import Bodies
from agentlab.llm.serve.call import encoded
from agentlab.llm.serve.faults import Fault, RefusedError, fault_of, internal
from agentlab.llm.serve.metrics import Metrics
from agentlab.runs.redact import Redactor

LOG = logging.getLogger("agentlab.llm.serve")
HEALTH = "/health"
_BUSY_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Rules:
    """What is let in.

    Attributes:
        token: what `Authorization: Bearer` has to hold; None lets everybody in who reaches the socket.
        local: the socket listens on loopback only, so that only pages of this machine's own may name it.
        at_once: requests that may be answered at a time.
        mark: of this gateway, among those that lead to each other.
    """

    token: str | None
    local: bool
    at_once: int
    mark: str = field(default_factory=lambda: secrets.token_hex(8))


def fault_response(fault: Fault) -> Response:
    """The document of an error as a reply."""
    return Response(
        encoded(fault.document), status_code=fault.status, headers=dict(fault.headers), media_type="application/json"
    )


class Gate:
    """ASGI middleware: origin, token, circle, body, capacity; and the boundary of errors.

    The routes find what a body holds as `request.state.tree`.
    """

    def __init__(self, app: ASGIApp, rules: Rules, metrics: Metrics, redactor: Redactor) -> None:
        self._app = app
        self._rules = rules
        self._metrics = metrics
        self._redactor = redactor
        self._bodies = Bodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or say why not."""
        if scope["type"] != "http":
            return
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._admitted(scope, receive, noted)
        except asyncio.CancelledError:  # the server stops, and has waited long enough
            if not begun:
                fault = fault_of(LLMCancelledError("The gateway stops."), self._redactor)
                await fault_response(fault)(scope, receive, send)
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: a client must never see more than a document
            if isinstance(error, AgentlabError):
                fault = fault_of(error, self._redactor)
            else:
                LOG.error("A request failed: %s", self._redactor.scrub(traceback.format_exc()))
                fault = internal()
            if not begun:
                await fault_response(fault)(scope, receive, send)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
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
                await self._answered(scope, receive, send)
            finally:
                del scope["state"]["tree"], tree  # the connection keeps the scope until its next request

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._metrics.in_flight >= self._rules.at_once:
            raise RefusedError(
                f"{self._rules.at_once} requests are being answered, which is the limit.",
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
        if self._rules.local and not is_loopback(f"http://{host}"):
            raise RefusedError("The Host header does not name this machine.", status=403, code="foreign_host")
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"http://{host}":
            raise RefusedError("Pages of another origin may not ask.", status=403, code="foreign_origin")

    def _check_token(self, headers: Mapping[str, str]) -> None:
        if self._rules.token is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("utf-8"), self._rules.token.encode("utf-8"))
        if scheme.lower() != "bearer" or not right:
            raise RefusedError(
                "The gateway asks for its token, as `Authorization: Bearer ...`.",
                status=401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _check_circle(self, headers: Mapping[str, str]) -> None:
        try:
            passed = hop.marks(headers.get(hop.HEADER, ""))
        except ValueError as error:
            raise RefusedError(f"{error}.", code="invalid_header") from None
        if self._rules.mark in passed or len(passed) >= hop.MOST:
            raise RefusedError(
                "The request has come back to this gateway: its models lead in a circle.", status=508, code="circle"
            )
        hop.enter((*passed, self._rules.mark))
