"""The routes: OpenAI's chat completions, completions, responses, embeddings and models; health, and metrics."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agentlab.errors import AgentlabError, LLMCancelledError
from agentlab.llm.concurrency import give_up
from agentlab.llm.config import LLMConfig
from agentlab.llm.options import Options
from agentlab.llm.router import Router
from agentlab.llm.serve import names
from agentlab.llm.serve.call import GatewayCall, GatewayReply, encode_json, text_of
from agentlab.llm.serve.chat import read_chat, read_completion
from agentlab.llm.serve.embeddings import document, read_embedding
from agentlab.llm.serve.faults import RefusedError, fault_of
from agentlab.llm.serve.gate import HEALTH, Gate, GatewayRules, fault_response
from agentlab.llm.serve.metrics import CONTENT_TYPE, OK, Endpoint, GatewayMetrics
from agentlab.llm.serve.responses import read_response
from agentlab.llm.types import Completion, Delta, ToolPiece, Usage
from agentlab.runs.redact import Redactor

T = TypeVar("T")

TASK = names.TASK
SERVED_BY = "X-Agentlab-Model"
_NO_MODEL = "none"  # what the metrics call the model of a request that names none


def create_app(config: LLMConfig, router: Router, rules: GatewayRules, redactor: Redactor) -> Starlette:
    """The gateway as an ASGI application. `redactor` knows every secret, the token included."""
    metrics = GatewayMetrics()
    gateway = Gateway(config, router, metrics, redactor)
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", partial(gateway.answer, "chat", read_chat), methods=["POST"]),
            Route("/v1/completions", partial(gateway.answer, "completions", read_completion), methods=["POST"]),
            Route("/v1/responses", partial(gateway.answer, "responses", read_response), methods=["POST"]),
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

    def __init__(self, config: LLMConfig, router: Router, metrics: GatewayMetrics, redactor: Redactor) -> None:
        self._config = config
        self._router = router
        self._metrics = metrics
        self._redactor = redactor
        self._started = int(time.time())

    async def answer(self, endpoint: Endpoint, read: Callable[[Any], GatewayCall], request: Request) -> Response:
        """POST /v1/chat/completions, /v1/completions and /v1/responses, which `read` understands."""
        with self._count_request(endpoint) as count:
            call = read(request.state.tree)
            strategy, model = names.meaning(call.model, self._config)
            call = replace(call, options=replace(call.options, strategy=strategy, model=model))
            reply = call.reply(secrets.token_hex(12), int(time.time()))
            count.model = call.model
            if call.stream:
                count.later = True
                return EventStream(self._events(endpoint, call, reply))
            answer = await unless_gone(request.receive, self._whole_answer(call))
            count.model, count.usage = answer.model, answer.usage
            return _json(reply.whole_document(answer), answer.model)

    async def _events(self, endpoint: Endpoint, call: GatewayCall, reply: GatewayReply) -> AsyncGenerator[bytes, None]:
        """A streamed answer. One that breaks off ends with an error, and without the word that it is complete."""
        has_begun = False
        try:
            with self._count_request(endpoint) as count:
                count.model = call.model
                async with aclosing(self._pieces(call)) as answer:
                    async for piece in answer:
                        has_begun = True
                        if isinstance(piece, Delta):
                            yield reply.piece(piece)
                        else:
                            count.model, count.usage = piece.model, piece.usage
                            yield reply.closing(piece)
        except AgentlabError as error:
            if not has_begun:
                raise
            yield reply.broken(fault_of(error, self._redactor).document)

    async def _pieces(self, call: GatewayCall) -> AsyncGenerator[Delta | Completion[Any], None]:
        """The pieces of an answer, then the answer. One that has to be JSON is checked before any of it is shown."""
        if call.options.json_only or call.options.json_schema is not None:
            answer = await self._whole_answer(call)
            tools = (ToolPiece(i, tool.id, tool.name, tool.arguments) for i, tool in enumerate(answer.tool_calls))
            yield Delta(text=text_of(answer), tools=tuple(tools))
            yield answer
            return
        live = self._router.stream(call.messages, TASK, options=call.options)
        async with aclosing(aiter(live)) as deltas:
            async for delta in deltas:
                first = tuple(piece for piece in delta.tools if piece.index == 0)
                yield replace(delta, tools=first) if call.one_tool else delta
        yield _limit_tool_calls(call, live.completion)

    async def _whole_answer(self, call: GatewayCall) -> Completion[Any]:
        return _limit_tool_calls(call, await self._router.complete(call.messages, TASK, options=call.options))

    async def embeddings(self, request: Request) -> Response:
        with self._count_request("embeddings") as count:
            call = read_embedding(request.state.tree)
            strategy, model = names.meaning(call.model, self._config)
            if strategy is not None and model is None:
                raise RefusedError("model: embeddings have no strategies; name a model, or `agentlab`.", param="model")
            count.model = call.model
            embed_task = self._router.embed(call.input, options=Options(model=model))
            served_by, embeddings = await unless_gone(request.receive, embed_task)
            count.model, count.usage = served_by, embeddings.usage
            return _json(document(embeddings, served_by, call), served_by)

    async def models(self, _: Request) -> Response:
        listed = [self._model(name, owner) for name, owner in names.known_names(self._config).items()]
        return _json({"object": "list", "data": listed})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        names.meaning(name, self._config)
        return _json(self._model(name, names.known_names(self._config)[name]))

    def _model(self, name: str, owner: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._started, "owned_by": owner}

    async def health(self, _: Request) -> Response:
        """GET /health: the process answers; who asks needs no token, and learns nothing else."""
        return _json({"status": "ok"})

    async def metrics(self, _: Request) -> Response:
        now = asyncio.get_running_loop().time()
        states = {name: guard.state(now) for name, guard in self._router.guards.items()}
        return Response(self._metrics.text(states), headers={"Content-Type": CONTENT_TYPE})

    async def no_route(self, _: Request, error: Exception) -> Response:
        """An address, or a method, that is not there."""
        assert isinstance(error, HTTPException)
        refusal = RefusedError(f"{error.detail}.", status=error.status_code, code="no_route", headers=error.headers)
        return fault_response(fault_of(refusal, self._redactor))

    @contextmanager
    def _count_request(self, endpoint: Endpoint) -> Iterator[_Count]:
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


def _limit_tool_calls(call: GatewayCall, answer: Completion[Any]) -> Completion[Any]:
    return replace(answer, tool_calls=answer.tool_calls[:1]) if call.one_tool else answer


def _json(content: Mapping[str, Any], served_by: str | None = None) -> Response:
    # a name of the config may hold what no header can
    headers = {} if served_by is None else {SERVED_BY: quote(served_by, safe="/:@ ")}
    return Response(encode_json(content), headers=headers, media_type="application/json")


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, or LLMCancelledError as soon as the client leaves. The body has been read before."""
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(_departure(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise LLMCancelledError("The client disconnected.")
    finally:
        await give_up(task, watch)
        del task  # an error holds this frame: the two would keep the question in memory


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events as they come. Nothing is sent before the first, so that an error up to there is a status."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(headers=headers, media_type="text/event-stream")
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        await unless_gone(receive, self._pump(send))

    async def _pump(self, send: Send) -> None:
        has_begun = False
        async with aclosing(self._events) as events:
            async for event in events:
                if not event:
                    continue  # nothing that this dialect has a word for
                if not has_begun:
                    has_begun = True
                    head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                    await send(head)
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
