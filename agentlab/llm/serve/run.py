"""The gateway as a process: what is checked before it starts, its socket, and how it ends."""

import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Self
from urllib.parse import urlsplit

import uvicorn

from agentlab.errors import ConfigError, MissingKeyError, UsageError
from agentlab.llm.config import LLMConfig
from agentlab.llm.provider_config import is_loopback
from agentlab.llm.router import Router
from agentlab.llm.serve import names
from agentlab.llm.serve.app import create_app
from agentlab.llm.serve.connection import KEEP_ALIVE, Crowd, GatewayConnection
from agentlab.llm.serve.gate import GatewayRules
from agentlab.runs.context import Context
from agentlab.runs.document import AnswerDocument, Block, Text
from agentlab.runs.redact import Redactor

TOKEN = "AGENTLAB_SERVE_TOKEN"  # noqa: S105 - the name of a variable
_GRACE_SECONDS = 8  # for requests in flight when the server is told to stop; what is behind takes another one
_WAITING = 512  # connections that the system holds until they are accepted
_AT_A_TIME = 32  # connections that are accepted before others are heard: fewer than would push one out unheard
_IDLE = 256  # connections besides those of requests that are answered
_OWN_FILES = 64  # of the process itself
_MAKE_ONE = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Where to listen, who may ask, and how many at a time."""

    host: str = "127.0.0.1"  # a name or an address of this machine
    port: int = 8484  # 0 takes a free one
    token_env: str | None = None  # the variable that holds the token; None is `TOKEN`, if it is set
    at_once: int = 64  # requests that are answered at a time

    @property
    def url(self) -> str:
        return f"http://{_bracket_host(self.host)}:{self.port}/v1"


def _bracket_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Served(AnswerDocument):
    """Where the gateway listens, and what a client may write into `model`."""

    url: str
    models: list[str]

    @classmethod
    def of(cls, url: str, config: LLMConfig) -> Self:
        return cls(url=url, models=list(names.known_names(config)))

    def blocks(self) -> list[Block]:
        return [Text(f"Listening at {self.url}"), Text(f"Models: {', '.join(self.models)}")]


# Told of the server before it starts, and how it is brought to its end.
Guide = Callable[[uvicorn.Server], contextlib.AbstractContextManager[None]]


def serve(
    config: LLMConfig,
    settings: GatewaySettings,
    context: Context,
    *,
    ready: Callable[[str], None],
    say: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM, then end what is in flight, within 10 seconds. A second signal ends it at once.

    `ready` is told the base URL once connections are accepted; `say` whatever else there is to know.

    Raises:
        ConfigError: no models, or one that leads back to the gateway.
        UsageError: the address cannot be listened at, or is open to others while no token is set.
        MissingKeyError, MissingFileError: what the models or the token need is not there.
    """
    run(config, settings, context, ready, partial(_signals, say=say))


def run(
    config: LLMConfig, settings: GatewaySettings, context: Context, ready: Callable[[str], None], guide: Guide
) -> None:
    """`serve` with another way to its end."""
    names.check(config)
    token = token_of(settings, context)
    files = open_files(_OWN_FILES + _AT_A_TIME + _IDLE + 4 * settings.at_once)
    crowd = Crowd(most_connections(settings.at_once, files))
    with listen(settings) as listener:
        bound_settings = replace(settings, port=listener.getsockname()[1])
        refuse_circles(config, bound_settings)
        local = is_loopback(f"http://{_bracket_host(listener.getsockname()[0])}")
        rules = GatewayRules(token, local, settings.at_once, crowd.end_stuck)
        asyncio.run(_serve(config, rules, context, listener, crowd, lambda: ready(bound_settings.url), guide))


async def _serve(
    config: LLMConfig,
    rules: GatewayRules,
    context: Context,
    listener: socket.socket,
    crowd: Crowd,
    ready: Callable[[], None],
    guide: Guide,
) -> None:
    redactor = Redactor.of({**context.env, TOKEN: rules.token or ""})
    async with Router(config, env=context.env, workspace=context.workspace, in_callers_loop=True) as router:
        router.check()
        server = _Server(create_app(config, router, rules, redactor), crowd, ready)
        with guide(server):
            await server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn, with signals that are ours, so that a clean end is one."""

    def __init__(self, app: object, crowd: Crowd, ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type] # an ASGI application by another name
                http=partial(GatewayConnection, crowd=crowd),  # type: ignore[arg-type] # makes them, as a class does
                backlog=_AT_A_TIME,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",  # errors of requests are reported by the gate, without secrets
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(_WAITING)  # asyncio takes one figure for both
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _signals(server: uvicorn.Server, *, say: Callable[[str], None]) -> Iterator[None]:
    """First signal: no new requests. Second: leave."""

    def stop() -> None:
        if server.should_exit:
            server.force_exit = True
        else:
            server.should_exit = True
            say(f"stopping: requests in flight have {_GRACE_SECONDS} seconds; press Ctrl+C again to stop now")

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def token_of(settings: GatewaySettings, context: Context) -> str | None:
    """The token that clients have to show; None if everybody who reaches the socket may ask.

    Raises:
        MissingKeyError: the variable that was named is not set.
        UsageError: others can reach the address, and there is no token.
    """
    variable = TOKEN if settings.token_env is None else settings.token_env
    token = context.env.get(variable, "").strip()
    if token:
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise UsageError(
                f"{variable} contains characters that are invalid in a token.", hint=f"Create one: {_MAKE_ONE}"
            )
        return token
    if settings.token_env is not None:
        hint = f"Create a token: export {variable or TOKEN}=$({_MAKE_ONE})"
        raise MissingKeyError(f"{variable or 'The variable of --token-env'} is not set.", hint=hint)
    if not is_loopback(settings.url):
        raise UsageError(
            f"Other machines can reach {settings.host}: anybody who finds the port could use your keys.",
            hint=f"Set a token, which clients send as their API key: export {TOKEN}=$({_MAKE_ONE}); "
            "or leave out --host to serve only this machine.",
        )
    return None


def open_files(needed: int) -> int:
    """How many files the process may have open: what it may now, or `needed` as far as the system lets it have more."""
    now, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now != resource.RLIM_INFINITY and now < needed:
        now = needed if hard_limit == resource.RLIM_INFINITY else min(needed, hard_limit)
        resource.setrlimit(resource.RLIMIT_NOFILE, (now, hard_limit))
    return needed if now == resource.RLIM_INFINITY else now


def most_connections(at_once: int, files: int) -> int:
    """How many connections there may be, where each request that is answered needs two more files for its models.

    Raises:
        UsageError: there are not enough files.
    """
    spare_files = files - _OWN_FILES - _AT_A_TIME
    limit = max(spare_files - 2 * at_once, spare_files // 3)
    if limit < 1:
        raise UsageError(f"The system allows only {files} open files.", hint="Allow more: ulimit -n 1024")
    return min(limit, _IDLE + 2 * at_once)


def listen(settings: GatewaySettings) -> socket.socket:
    """A listening socket. Raises UsageError if the address cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "the host name is not valid"
        raise UsageError(
            f"Cannot listen on {settings.host}:{settings.port}: {reason}.",
            hint="Another program or gateway may be using it; --port 0 picks a free one.",
        ) from None
    # asyncio does so only for sockets it has made; without it the end of each answer waits 40 ms for the client's nod
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def refuse_circles(config: LLMConfig, settings: GatewaySettings) -> None:
    """Raise ConfigError if providers are the gateway itself; it names each.

    Longer circles show while it runs (`agentlab.llm.via`).
    """
    open_to_all = settings.host in ("0.0.0.0", "::")  # noqa: S104 - a comparison
    if not (is_loopback(settings.url) or open_to_all):
        return  # a provider without TLS is on loopback, where this gateway is not
    circles = [
        f"providers.{name}.base_url: {url} is this gateway, which would call itself forever"
        for name, provider in config.providers.items()
        if is_loopback(url := getattr(provider, "base_url", "")) and _port_of(url) == settings.port
    ]
    if circles:
        raise ConfigError("\n".join(circles), hint="Use another --port, or set the address of the model's own server.")


def _port_of(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)
