"""The routes: OpenAI's chat completions, models and embeddings, health, and metrics."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentlab.errors import AgentlabError, LLMCancelledError
from agentlab.llm.config import LLMConfig
from agentlab.llm.options import Options
from agentlab.llm.router import Router
from agentlab.llm.serve import names, replies
from agentlab.llm.serve.connection import EventStream, body_of, unless_gone
from agentlab.llm.serve.faults import RefusedError, fault_of
from agentlab.llm.serve.gate import HEALTH, Gate, Rules, fault_response
from agentlab.llm.serve.metrics import CONTENT_TYPE, OK, Endpoint, Metrics
from agentlab.llm.serve.requests import ChatRequest, chat_request, embedding_request
from agentlab.llm.types import Completion, Delta, Usage
from agentlab.runs.redact import Redactor

TASK = "serve"  # what `tasks` of a config, and the statistics, call the gateway's questions
SERVED_BY = "X-Agentlab-Model"
_NO_MODEL = "none"  # what the metrics call the model of a request that names none


def create_app(config: LLMConfig, router: Router, rules: Rules, redactor: Redactor) -> Starlette:
    """The gateway as an ASGI application. `redactor` knows every secret, the token included."""
    metrics = Metrics()
    gateway = Gateway(config, router, metrics, redactor)
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", gateway.chat, methods=["POST"]),
            Route("/v1/embeddings", gateway.embeddings, methods=["POST"]),
            Route("/v1/models", gateway.models),
            Route("/v1/models/{name:path}", gateway.model),
            Route(HEALTH, gateway.health),
            Route("/metrics", gateway.metrics),
        ],
        middleware=[Middleware(Gate, rules, metrics, redactor)],
        exception_handlers={HTTPException: gateway.no_route},
    )
    app.router.redirect_slashes = False
    return app


@dataclass(slots=True)
class _Count:
    """What is noted about a request while it is answered; `later`: by the events of its stream instead."""

    model: str = _NO_MODEL
    usage: Usage | None = None
    later: bool = False


class Gateway:
    """Answers the requests that the gate has let in."""

    def __init__(self, config: LLMConfig, router: Router, metrics: Metrics, redactor: Redactor) -> None:
        self._config = config
        self._router = router
        self._metrics = metrics
        self._redactor = redactor
        self._started = int(time.time())

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        with self._counted("chat") as count:
            call = chat_request(await body_of(request))
            options = call.options(*names.meaning(call.model, self._config))
            count.model = call.model
            if call.stream:
                count.later = True
                return EventStream(self._events(call, options))
            asked = self._router.complete(call.conversation(), TASK, options=options)
            answer = await unless_gone(request.receive, asked)
            count.model, count.usage = answer.model, answer.usage
            return _json(replies.completion(answer, _chat_id(), int(time.time())), answer.model)

    async def _events(self, call: ChatRequest, options: Options) -> AsyncGenerator[bytes, None]:
        """A streamed answer. One that breaks off ends with an error, and without the word that it is complete."""
        pieces = replies.Pieces(_chat_id(), int(time.time()), call.model, call.include_usage)
        begun = False
        try:
            with self._counted("chat") as count:
                count.model = call.model
                async with aclosing(self._pieces(call, options)) as answer:
                    async for piece in answer:
                        opening, begun = b"" if begun else pieces.opening(), True
                        if isinstance(piece, Delta):
                            yield opening + pieces.piece(piece)
                        else:
                            count.model, count.usage = piece.model, piece.usage
                            yield opening + pieces.closing(piece)
        except AgentlabError as error:
            if not begun:
                raise
            yield replies.event(fault_of(error, self._redactor).document)

    async def _pieces(self, call: ChatRequest, options: Options) -> AsyncGenerator[Delta | Completion[Any], None]:
        """The pieces of an answer, then the answer. One that has to be JSON is checked before any of it is shown."""
        if options.json_only or options.json_schema is not None:
            answer = await self._router.complete(call.conversation(), TASK, options=options)
            yield replies.whole(answer)
            yield answer
            return
        live = self._router.stream(call.conversation(), TASK, options=options)
        async with aclosing(aiter(live)) as deltas:
            async for delta in deltas:
                yield delta
        yield live.completion

    async def embeddings(self, request: Request) -> Response:
        """POST /v1/embeddings."""
        with self._counted("embeddings") as count:
            call = embedding_request(await body_of(request))
            strategy, model = names.meaning(call.model, self._config)
            if strategy is not None and model is None:
                raise RefusedError("model: vectors are not compared; name a model, or `agentlab`.", param="model")
            count.model = call.model
            asked = self._router.embed(call.input, options=Options(model=model))
            served_by, found = await unless_gone(request.receive, asked)
            count.model, count.usage = served_by, found.usage
            document = replies.embeddings(found, served_by, as_base64=call.encoding_format == "base64")
            return _json(document, served_by)

    async def models(self, _: Request) -> Response:
        """GET /v1/models."""
        return _json(replies.models(names.known(self._config), self._started))

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        name = request.path_params["name"]
        names.meaning(name, self._config)
        return _json(replies.model(name, names.known(self._config)[name], self._started))

    async def health(self, _: Request) -> Response:
        """GET /health: the process answers; who asks needs no token, and learns nothing else."""
        return _json({"status": "ok"})

    async def metrics(self, _: Request) -> Response:
        """GET /metrics."""
        now = asyncio.get_running_loop().time()
        states = {name: guard.state(now) for name, guard in self._router.guards.items()}
        return Response(self._metrics.text(states), headers={"Content-Type": CONTENT_TYPE})

    async def no_route(self, _: Request, error: Exception) -> Response:
        """An address, or a method, that is not there."""
        assert isinstance(error, HTTPException)
        refusal = RefusedError(f"{error.detail}.", status=error.status_code, code="no_route", headers=error.headers)
        return fault_response(fault_of(refusal, self._redactor))

    @contextmanager
    def _counted(self, endpoint: Endpoint) -> Iterator[_Count]:
        """Count a request when it ends."""
        start, count, outcome = time.monotonic(), _Count(), LLMCancelledError.__name__
        try:
            yield count
            outcome = OK
        except AgentlabError as error:
            outcome = error.kind
            raise
        finally:
            if not count.later:
                self._metrics.count(endpoint, count.model, outcome, time.monotonic() - start, count.usage)


def _chat_id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"


def _json(document: Mapping[str, Any], served_by: str | None = None) -> Response:
    # a name of the config may hold what no header can
    headers = {} if served_by is None else {SERVED_BY: quote(served_by, safe="/:@ ")}
    return Response(replies.encoded(document), headers=headers, media_type="application/json")
