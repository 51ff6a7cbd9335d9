"""Endpoints that speak OpenAI's chat completions: OpenRouter, OpenAI, vLLM, llama.cpp, Ollama, LM Studio.

What comes in is written by a stranger: nothing is taken for granted, every text is bounded.
"""

import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from agentlab import errors
from agentlab.errors import BadRequestError, MalformedReplyError
from agentlab.llm.provider_config import OpenAICompatProvider, host_of
from agentlab.llm.providers import ProviderContext, faults
from agentlab.llm.providers.parsing import LONGEST_FINISH, amount, clean, count, json_object, mapping, text_of
from agentlab.llm.providers.remote import Endpoint, key_of
from agentlab.llm.transport import Transport
from agentlab.llm.types import Delta, Embeddings, Message, ModelRequest, Tool, ToolPiece, Usage

# Only OpenRouter knows these words; others refuse a request that holds them.
_EXTRAS: dict[str, dict[str, Any]] = {"openrouter.ai": {"usage": {"include": True}}}
# What single models refuse; see `remote.RefusableFields`.
REFUSABLE: Mapping[str, str | None] = {
    "max_tokens": "max_completion_tokens",
    "top_p": None,
    "temperature": None,
    "seed": None,
    "stream_options": None,
}
# Texts of one request: 128 vectors of 4,096 numbers are some 11 MB of JSON, a third of what a reply may have.
BATCH = 128
MOST_TEXTS = 1 << 16
_LONGEST_VECTOR = 1 << 16

Vector = tuple[float, ...]
_DONE = "[DONE]"


def build(name: str, provider: OpenAICompatProvider, surroundings: ProviderContext) -> "OpenAICompatModel":
    """The factory of the table in `agentlab.llm.providers`."""
    key = key_of(name, provider, surroundings)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    transport = Transport(provider.base_url, surroundings.timeout, headers)
    endpoint = Endpoint(transport, key=key, key_name=provider.key_name, refusable=REFUSABLE)
    extras = _EXTRAS.get(host_of(provider.base_url), {})
    if provider.lora is not None:  # and no cache: what one adapter has read would answer for another
        extras = {**extras, "lora": [{"id": provider.lora, "scale": 1.0}], "cache_prompt": False}
    return OpenAICompatModel(endpoint, extras=extras)


class OpenAICompatModel:
    """All models of one endpoint."""

    def __init__(self, endpoint: Endpoint, *, extras: Mapping[str, Any]) -> None:
        self._endpoint = endpoint
        self._extras = extras

    def stream(self, request: ModelRequest) -> AsyncIterator[Delta]:
        """Answer piece by piece; the last piece may hold nothing but the usage."""
        return self._endpoint.chat("/chat/completions", request_body(request, self._extras), ChatReader())

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """The vectors of all texts, asked for in batches.

        Raises:
            BadRequestError: more texts than one call takes; the model makes no vectors, though it may well chat.
            RemoteError: as of `stream`.
        """
        if len(texts) > MOST_TEXTS:
            raise BadRequestError(f"{len(texts)} texts are too many for one call.", hint=f"Send at most {MOST_TEXTS}.")
        vectors: list[Vector] = []
        usage = Usage()
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            try:
                async with self._endpoint.post("/embeddings", {"model": model, "input": list(batch)}) as reply:
                    part = parse_embeddings(await reply.document(), len(batch))
            except errors.UnknownModelError as error:
                raise BadRequestError(f"The model does not support embeddings: {error.message}") from None
            vectors += part.vectors
            usage += part.usage
        check_one_length(vectors)
        return Embeddings(tuple(vectors), usage)

    async def close(self) -> None:
        await self._endpoint.close()


def request_body(request: ModelRequest, extras: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON to send. Always streamed and with usage: a whole answer is the end of a stream. `extras` come on top."""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "seed": request.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop"] = list(request.stop)
    if request.schema is not None:
        schema_format = {"name": "answer", "strict": True, "schema": dict(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema_format}
    elif request.json_only:
        body["response_format"] = {"type": "json_object"}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        body["tool_choice"] = _tool_choice(request.tool_choice)
    return {**body, **extras}


def _message(message: Message) -> dict[str, Any]:
    shape: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        shape["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        shape["tool_call_id"] = message.tool_call_id
    return shape


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _tool_choice(choice: str) -> str | dict[str, Any]:
    return choice if choice in ("auto", "none", "required") else {"type": "function", "function": {"name": choice}}


def check_one_length(vectors: Sequence[Vector]) -> None:
    """Raise MalformedReplyError for vectors of different lengths, which cannot be compared with each other."""
    if len({len(vector) for vector in vectors}) > 1:
        raise MalformedReplyError("The reply's vectors differ in length.")


def parse_embeddings(body: bytes, expected_count: int) -> Embeddings:
    """The vectors of a reply, checked, in the order of the texts.

    Raises:
        BadRequestError: no vectors at all.
        MalformedReplyError: not `expected_count` vectors of finite numbers.
        RemoteError: the reply reports an error.
    """
    document = _document(body.decode(errors="replace"))
    rows = document.get("data")
    if not rows:
        raise BadRequestError("The model does not support embeddings: the reply has none.")
    if not isinstance(rows, list) or len(rows) != expected_count:
        vectors_there = len(rows) if isinstance(rows, list) else 0
        raise MalformedReplyError(f"The reply has {vectors_there} vectors for {expected_count} texts.")
    vectors: dict[int, Vector] = {}
    for position, row in enumerate(rows):
        index = mapping(row).get("index", position)
        if not isinstance(index, int) or not 0 <= index < expected_count or index in vectors:
            raise MalformedReplyError("The reply's vectors are not numbered uniquely from 0.")
        vectors[index] = _vector(mapping(row).get("embedding"))
    usage = mapping(document.get("usage"))
    in_order = tuple(vectors[index] for index in range(expected_count))
    return Embeddings(in_order, Usage(count(usage.get("prompt_tokens")), None, amount(usage.get("cost")) or None))


def _vector(numbers: object) -> Vector:
    if not isinstance(numbers, list) or not 0 < len(numbers) <= _LONGEST_VECTOR:
        raise MalformedReplyError(f"A vector in the reply is not a list of 1 to {_LONGEST_VECTOR} numbers.")
    try:
        vector = tuple(float(number) for number in numbers if type(number) in (int, float))
    except OverflowError:  # JSON knows whole numbers of any size
        vector = ()
    if len(vector) != len(numbers) or not all(map(math.isfinite, vector)):
        raise MalformedReplyError("A vector in the reply contains a value that is not a finite number.")
    return vector


class ChatReader:
    """Reads the events of one stream, or the one document that a server sends instead."""

    def __init__(self) -> None:
        self.finished = self.ended = False
        self._ids: list[str] = []  # of the tool calls so far
        self._places: dict[int, int] = {}  # the server's index of a call -> ours

    def event(self, data: str) -> Delta:
        """One event.

        Raises:
            MalformedReplyError: not JSON of the agreed shape. A lost piece would be a wrong answer: none is skipped.
            RemoteError: the event reports an error.
        """
        if data.strip() == _DONE:
            delta = Delta(finish=None if self.finished else "stop")
            self.finished = self.ended = True
            return delta
        document = _document(data)
        choice = _first_choice(document)
        return self._delta(mapping(choice.get("delta")), choice, document)

    def document(self, body: bytes) -> Delta:
        """A whole answer in one document, from a server that does not stream; errors as of `event`."""
        document = _document(body.decode(errors="replace"))
        choice = _first_choice(document)
        if not choice:
            raise MalformedReplyError("The reply has no choices.")
        return self._delta(mapping(choice.get("message")), choice, document)

    def _delta(self, message: Mapping[str, Any], choice: Mapping[str, Any], document: Mapping[str, Any]) -> Delta:
        if message.get("refusal"):
            raise errors.ContentFilterError("The model refused to answer.")
        content, calls, finish = message.get("content"), message.get("tool_calls"), choice.get("finish_reason")
        usage, thought = document.get("usage"), message.get("reasoning") or message.get("reasoning_content")
        if finish:
            finish = _finish(finish)
            self.finished = True
        return Delta(
            content if isinstance(content, str) else _content(content),
            finish or None,
            _usage(usage) if usage else None,
            thought if isinstance(thought, str) else "",  # in another shape it is no loss to the answer
            self._pieces(calls) if calls else (),
        )

    def _pieces(self, calls: object) -> tuple[ToolPiece, ...]:
        if not isinstance(calls, list):
            raise MalformedReplyError("The reply's tool calls are not a list.")
        return tuple(self._piece(mapping(call)) for call in calls)

    def _piece(self, call: Mapping[str, Any]) -> ToolPiece:
        function = mapping(call.get("function"))
        identity, name = text_of(call.get("id"), "tool call id"), text_of(function.get("name"), "tool name")
        arguments = function.get("arguments")
        if isinstance(arguments, dict):  # as some servers send them
            arguments = json.dumps(arguments)
        calls, position = len(self._ids), self._call_position(call.get("index"), identity)
        if position == calls:  # its first piece: who calls the tool has to name the call, even if the server does not
            identity = identity or f"call_{position}"
        return ToolPiece(position, identity, name, text_of(arguments, "tool call's arguments"))

    def _call_position(self, index: object, identity: str) -> int:
        """Our index of a call. Some servers leave theirs out, or give each call the same: then the id tells."""
        server_index = index if isinstance(index, int) else -1
        position = self._places.get(server_index)
        if position is None or (identity and self._ids[position] not in ("", identity)):
            position = self._places[server_index] = len(self._ids)
            self._ids.append(identity)
        return position


def _document(text: str) -> dict[str, Any]:
    document = json_object(text)
    if document.get("error"):
        raise faults.reported_error(document["error"])
    return document


def _first_choice(document: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = document.get("choices")
    if choices is not None and not isinstance(choices, list):
        raise MalformedReplyError("The reply's choices are not a list.")
    return mapping(choices[0]) if choices else {}


def _content(content: object) -> str:
    if isinstance(content, list):  # parts, as some servers send them
        return "".join(text_of(mapping(part).get("text"), "content") for part in content)
    return text_of(content, "content")


def _finish(reason: object) -> str:
    if reason == "content_filter":
        raise errors.ContentFilterError("The provider's filter stopped the answer.")
    if reason == "error":
        raise errors.ServerFaultError("The provider reported an error within the answer.")
    return clean(reason, LONGEST_FINISH)


def _usage(reported: object) -> Usage:
    usage = mapping(reported)
    return Usage(
        count(usage.get("prompt_tokens")),
        count(usage.get("completion_tokens")),
        amount(usage.get("cost")) or None,  # some endpoints report 0 for what they do not know
    )
