"""HTTP, and the only file that imports httpx: connections of one origin, three clocks, and limits on what comes in.

The fourth clock, the total, belongs to the router: it runs on through retries and other models. Redirects are not
followed, because the key would go with them. Proxies of the environment are used for https, which they cannot read,
and never for this machine.
"""

import asyncio
import json
import math
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from agentlab import __version__, errors
from agentlab.errors import HostBusyError, LLMConnectionError, LLMTimeoutError, MalformedReplyError, RemoteError
from agentlab.llm import via
from agentlab.llm.clock import Clock
from agentlab.llm.config import Timeout
from agentlab.llm.provider_config import check_base_url, host_of, is_loopback
from agentlab.llm.sse import SseDecoder
from agentlab.llm.types import WIRE, WireTimes

LARGEST_REPLY = 32 << 20  # bytes
LARGEST_ERROR = 64 << 10
_KEEP_ALIVE_SECONDS = 30.0
_LINGER_SECONDS = 0.2
_STALE_SECONDS = 0.5  # within which a connection shows that it was closed before
_SETTLE_SECONDS = 0.02  # after which it shows which connections of a burst came about
_ALIVE_SECONDS = 1.0  # a host that took a connection or replied so short before a request began was not down then
_HEADERS = {
    "User-Agent": f"agentlab/{__version__}",
    "Accept": "text/event-stream, application/json",
    "Accept-Encoding": "identity",  # a compressed reply could unfold to a thousand times what was read
}


class Transport:
    """Sends to one origin. Belongs to the event loop in which it is first used."""

    def __init__(self, base_url: str, timeout: Timeout, headers: Mapping[str, str]) -> None:
        """`headers` go with every request, keys too. Raises ValueError if the URL would send them in the clear."""
        self._base_url = check_base_url(base_url)
        self._timeout = timeout
        self._headers = {**_HEADERS, **headers}
        self._tls: ssl.SSLContext | None = None
        # One client for each request at a time: the pool of a client looks at all of its connections whenever one
        # becomes free, which makes 64 at a time cost several times as much as one. The one used last comes first.
        self._idle: list[_Lane] = []
        self._lanes: list[_Lane] = []
        self._closing: set[asyncio.Future[None]] = set()

    def _lane(self) -> "_Lane":
        if self._idle:
            return self._idle.pop()
        self._tls = self._tls or _tls(self._base_url)
        client = httpx.AsyncClient(
            headers=self._headers,
            follow_redirects=False,
            trust_env=not is_loopback(self._base_url),
            verify=self._tls,
            # reading has clocks of its own, see Reply: httpx's would start again with every byte
            timeout=httpx.Timeout(self._timeout.idle, connect=self._timeout.connect, read=None, pool=None),
            limits=httpx.Limits(max_connections=1, keepalive_expiry=_KEEP_ALIVE_SECONDS),
        )
        self._lanes.append(_Lane(client))
        return self._lanes[-1]

    @asynccontextmanager
    async def post(self, path: str, body: Mapping[str, Any]) -> AsyncIterator["HttpReply"]:
        """Send JSON and hand out the reply as soon as its headers are there; leaving closes the connection.

        Raises:
            HostBusyError: refused, reset or no connection in time, while the host served other requests of ours.
            LLMConnectionError: the same from a host that served none, or its name was not found.
            LLMTimeoutError: no headers within the clock of the first token.
            MalformedReplyError: the other side does not speak HTTP, redirects, or compresses.
        """
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        try:
            lane = self._lane()
        except (OSError, ValueError, httpx.InvalidURL) as error:  # certificates or a proxy that cannot be used
            raise LLMConnectionError(f"Cannot set up a connection: {error}.") from None
        sound = False
        try:
            async with self._send_request(lane, f"{self._base_url}{path}", content) as reply:
                yield reply
            sound = True
        except RemoteError as error:
            sound = not isinstance(error, LLMTimeoutError)
            raise
        finally:
            if sound:
                self._idle.append(lane)
            else:
                self._give_up(lane)

    def _give_up(self, lane: "_Lane") -> None:
        """Whoever is cancelled within the library, by a clock too, may leave its only connection taken for ever."""
        self._lanes.remove(lane)
        closing = asyncio.ensure_future(lane.client.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    @asynccontextmanager
    async def _send_request(self, lane: "_Lane", url: str, content: bytes) -> AsyncIterator["HttpReply"]:
        start = asyncio.get_running_loop().time()
        until = start + self._timeout.first_token
        try:
            async with asyncio.timeout_at(until):
                response = await lane.send(url, content)
        except TimeoutError:
            raise LLMTimeoutError(_no_answer(self._timeout)) from None
        except httpx.InvalidURL as error:
            raise LLMConnectionError(f"Cannot set up a connection: {error}.") from None
        except httpx.HTTPError as error:
            raise await self._explain_failure(error, lane, start) from None
        clock = Clock()
        try:
            _refuse_detours(response)
            yield HttpReply(response, self._timeout, clock, until)
        finally:
            clock.stop()
            await response.aclose()

    async def _explain_failure(self, error: httpx.HTTPError, lane: "_Lane", start: float) -> RemoteError:
        """Why a request that began at `start` had no reply: a host that serves others of ours takes no more of them."""
        lane.connected = False
        host = urlsplit(self._base_url).netloc
        failed = _connection_error(error, host)
        if not isinstance(failed, LLMConnectionError) or len(self._lanes) - len(self._idle) < 2:
            return failed
        await asyncio.sleep(_SETTLE_SECONDS)
        neighbours = [neighbour for neighbour in self._lanes if neighbour is not lane]
        count = sum(neighbour.connected for neighbour in neighbours if neighbour not in self._idle)
        if count or any(neighbour.alive > start - _ALIVE_SECONDS for neighbour in neighbours):
            return HostBusyError(
                f"{host} accepts only {count} concurrent requests from this client.", connections=count
            )
        return failed

    async def close(self) -> None:
        await asyncio.gather(*self._closing, *(lane.client.aclose() for lane in self._lanes))


class _Lane:
    """One client, for one request at a time."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.connected = False  # a connection stands, as far as is known
        self.alive = -math.inf  # when the host last took a connection or began a reply, in the loop's time
        self._answered = False  # on the connection that is there now
        self._wire: WireTimes | None = None
        self._stamped: Any = None  # the connection whose reads are told

    async def send(self, url: str, content: bytes) -> httpx.Response:
        """The response as soon as its headers are there.

        A connection that was kept may have been closed by the other side at this very moment. Then nothing comes back,
        and the request is sent once more, on a new connection.
        """
        headers = {"Content-Type": "application/json", **via.headers()}
        request = self.client.build_request("POST", url, content=content, headers=headers)
        self._wire = WIRE.get()
        if self._wire is not None:
            request.extensions["trace"] = self._on_trace
        is_reused, self._answered = self._answered, False
        clock = asyncio.get_running_loop().time
        start = clock()
        if is_reused:
            try:
                return self._accept_response(await self.client.send(request, stream=True))
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                if clock() - start > _STALE_SECONDS:  # by then the other side may have worked on it
                    raise
        self.connected = False
        request.extensions["trace"] = self._on_trace
        return self._accept_response(await self.client.send(request, stream=True))

    def _accept_response(self, response: httpx.Response) -> httpx.Response:
        self._answered = True
        self._lives()
        if self._wire is not None:
            self._wire.came = self.alive
            self._stamp(response.extensions["network_stream"])
        return response

    def _stamp(self, stream: Any) -> None:
        """Tell the wire of each read; the pieces of a body come one by one, however many were read at once."""
        if self._stamped is stream:
            return
        self._stamped, read, now = stream, stream.read, asyncio.get_running_loop().time

        async def stamping(*args: Any, **kwargs: Any) -> bytes:
            data: bytes = await read(*args, **kwargs)
            if self._wire is not None:
                self._wire.came = now()
            return data

        stream.read = stamping

    async def _on_trace(self, event: str, _: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            self._lives()
        elif event == "http11.send_request_body.complete" and self._wire is not None:
            self._wire.sent = asyncio.get_running_loop().time()

    def _lives(self) -> None:
        self.connected, self.alive = True, asyncio.get_running_loop().time()


class HttpReply:
    """A reply whose headers are there. Its clock is the first token's, from `mark_begun` on that of silence.

    From `mark_ended` on, what still comes is read for a moment only, so that the connection can be used again.
    """

    def __init__(self, response: httpx.Response, timeout: Timeout, clock: Clock, until: float) -> None:
        """`until` is when, in the loop's time, the answer has to have begun."""
        self._stream = response.aiter_raw()
        self._timeout = timeout
        self._clock = clock
        self._now = asyncio.get_running_loop().time
        self._size = 0
        self._until = until
        self._begun = self._ended = False
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers  # names in any case

    @property
    def is_event_stream(self) -> bool:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"

    def mark_begun(self) -> None:
        self._begun = True

    def mark_ended(self) -> None:
        self._ended = True
        self._until = self._now() + _LINGER_SECONDS

    async def events(self) -> AsyncIterator[str]:
        """The data of each event.

        Raises:
            LLMTimeoutError: the clock of the first token or of silence ran out.
            LLMConnectionError: the connection broke before the answer began.
            LLMTruncatedError: it broke afterwards.
            MalformedReplyError: not events, or more than 32 MiB.
        """
        decoder = SseDecoder()
        while (block := await self._next(LARGEST_REPLY)) is not None:
            for event in decoder.feed(block):
                if not self._ended:
                    yield event

    async def document(self) -> bytes:
        """The whole body of a reply that is no stream; errors as in `events`."""
        blocks = []  # joined once: what is too large never takes twice its room
        try:
            while (block := await self._next(LARGEST_REPLY)) is not None:
                blocks.append(block)
        except RemoteError:
            blocks.clear()  # an error keeps its frames for a while, and with them all that they hold
            raise
        return b"".join(blocks)

    async def error_body(self) -> str:
        """The beginning of the body of an error, as text, as far as it comes."""
        body = bytearray()
        try:
            while (block := await self._next(LARGEST_ERROR)) is not None:
                body += block
        except RemoteError as error:
            body += f" ({error.message})".encode()
        return body.decode(errors="replace")

    async def _next(self, limit: int) -> bytes | None:
        """The next bytes, at most `limit` in all; None at the end."""
        silence_counts = self._begun and not self._ended
        try:
            with self._clock.until(self._now() + self._timeout.idle if silence_counts else self._until):
                block = await anext(self._stream)
        except StopAsyncIteration:
            return None
        except (TimeoutError, httpx.HTTPError) as error:
            if self._ended:
                return None
            raise self._broken(error) from None
        self._size += len(block)
        if self._size > limit:
            raise MalformedReplyError(f"The reply is larger than {limit} bytes.")
        return block

    def _broken(self, error: TimeoutError | httpx.HTTPError) -> RemoteError:
        if isinstance(error, TimeoutError):
            silence = f"The answer paused for more than {self._timeout.idle:g} seconds."
            return LLMTimeoutError(silence if self._begun else _no_answer(self._timeout))
        message = f"The connection broke: {type(error).__name__}."
        return errors.LLMTruncatedError(message) if self._begun else LLMConnectionError(message)


def fetch(base_url: str, path: str, params: Mapping[str, str], headers: Mapping[str, str], seconds: float) -> Any:
    """Get a small JSON document, once, within `seconds`, from a URL that `check_base_url` has passed.

    Redirects are not followed: `headers` may hold a key.

    Raises:
        LLMConnectionError, LLMTimeoutError, MalformedReplyError: no answer, none in time, or not one of that kind.
    """
    host, until, content = urlsplit(base_url).netloc, time.monotonic() + seconds, b""
    client = httpx.Client(
        headers={**_HEADERS, **headers}, trust_env=not is_loopback(base_url), verify=_tls(base_url), timeout=seconds
    )
    try:
        with client, client.stream("GET", f"{base_url}{path}", params=params) as response:
            _refuse_detours(response)
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > LARGEST_ERROR or time.monotonic() > until:
                    raise LLMTimeoutError(f"The reply from {host} is too large or too slow.")
            if response.status_code != httpx.codes.OK:
                raise MalformedReplyError(f"{host} answered with status {response.status_code}.")
        return json.loads(content)
    except httpx.TimeoutException:
        raise LLMTimeoutError(f"{host} did not answer within {seconds:g} seconds.") from None
    except httpx.HTTPError as error:
        raise _connection_error(error, host) from None
    except ValueError as error:
        raise MalformedReplyError(f"{host} did not answer with JSON.") from error


def _tls(base_url: str) -> ssl.SSLContext:
    """Reading the certificates takes 40 ms: a plain endpoint of this machine gets a context that trusts nobody."""
    if base_url.startswith("https:"):
        return httpx.create_ssl_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _no_answer(timeout: Timeout) -> str:
    return f"The answer did not begin within {timeout.first_token:g} seconds."


def _connection_error(error: httpx.HTTPError, host: str) -> LLMConnectionError | MalformedReplyError:
    """Never quotes the library: its words may hold a header, and with it the key."""
    if isinstance(error, httpx.ConnectTimeout):
        return LLMConnectionError(
            f"The connection to {host} timed out.", hint="Check that the endpoint and the network are up."
        )
    if isinstance(error, httpx.ConnectError):
        return LLMConnectionError(
            f"Cannot connect to {host}.", hint="Check that the server is running and that the address is right."
        )
    if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error):
        return MalformedReplyError(f"{host} does not speak valid HTTP.")
    return LLMConnectionError(f"The connection to {host} broke: {type(error).__name__}.")


def _refuse_detours(response: httpx.Response) -> None:
    if 300 <= response.status_code < 400:
        target = host_of(response.headers.get("location", "")) or "another address"
        raise MalformedReplyError(
            f"The endpoint redirects to {target}; the redirect is not followed because it would pass on the key.",
            hint="Set `base_url` to the final address.",
        )
    if response.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise MalformedReplyError("The reply is compressed although no compression was requested.")
