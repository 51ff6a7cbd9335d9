"""Endpoints that speak OpenAI's chat completions: OpenRouter, OpenAI, vLLM, llama.cpp, Ollama, LM Studio."""

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from agentlab.errors import BadRequestError, MalformedReplyError
from agentlab.llm.endpoint import host_of
from agentlab.llm.provider_config import OpenAICompatProvider
from agentlab.llm.providers import Surroundings, faults
from agentlab.llm.providers.openai_protocol import ChatReader
from agentlab.llm.providers.remote import Endpoint, key_of
from agentlab.llm.providers.untrusted import amount, count, json_object, mapping
from agentlab.llm.transport import Transport
from agentlab.llm.types import Delta, Embeddings, Message, Request, Tool, Usage

# Only OpenRouter knows these words; others refuse a request that holds them.
_EXTRAS: dict[str, dict[str, Any]] = {"openrouter.ai": {"usage": {"include": True}}}
# What single models refuse; see `remote.Dialect`.
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


def build(name: str, provider: OpenAICompatProvider, surroundings: Surroundings) -> "OpenAICompatModel":
    """The factory of the table in `agentlab.llm.providers`."""
    key = key_of(name, provider, surroundings)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    transport = Transport(provider.base_url, surroundings.timeout, headers)
    endpoint = Endpoint(transport, key=key, key_name=provider.key_name, refusable=REFUSABLE)
    return OpenAICompatModel(endpoint, extras=_EXTRAS.get(host_of(provider.base_url), {}))


class OpenAICompatModel:
    """All models of one endpoint."""

    def __init__(self, endpoint: Endpoint, *, extras: Mapping[str, Any]) -> None:
        """`extras` are added to every chat request."""
        self._endpoint = endpoint
        self._extras = extras

    def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Answer piece by piece; the last piece may hold nothing but the usage."""
        return self._endpoint.chat("/chat/completions", request_body(request, self._extras), ChatReader())

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """The vectors of all texts, asked for in batches.

        Raises:
            BadRequestError: more texts than one call takes.
            RemoteError: as of `stream`.
        """
        if len(texts) > MOST_TEXTS:
            raise BadRequestError(f"{len(texts)} texts are more than one call takes.", hint=f"At most {MOST_TEXTS}.")
        vectors: list[tuple[float, ...]] = []
        usage = Usage()
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            async with self._endpoint.post("/embeddings", {"model": model, "input": list(batch)}) as reply:
                part = parse_embeddings(await reply.document(), len(batch))
            vectors += part.vectors
            usage += part.usage
        check_one_length(vectors)
        return Embeddings(tuple(vectors), usage)

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._endpoint.close()


def request_body(request: Request, extras: Mapping[str, Any]) -> dict[str, Any]:
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
        wanted = {"name": "answer", "strict": True, "schema": dict(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": wanted}
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
    wanted = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": wanted}


def _tool_choice(choice: str) -> str | dict[str, Any]:
    return choice if choice in ("auto", "none", "required") else {"type": "function", "function": {"name": choice}}


def check_one_length(vectors: Sequence[Vector]) -> None:
    """Refuse vectors that cannot be compared with each other.

    Raises:
        MalformedReplyError: they are not of one length.
    """
    if len({len(vector) for vector in vectors}) > 1:
        raise MalformedReplyError("The reply's vectors are not of one length.")


def parse_embeddings(body: bytes, wanted: int) -> Embeddings:
    """The vectors of a reply, checked, in the order of the texts.

    Raises:
        MalformedReplyError: not `wanted` vectors of finite numbers.
        RemoteError: the reply reports an error.
    """
    document = json_object(body.decode(errors="replace"))
    if document.get("error"):
        raise faults.reported(document["error"])
    rows = document.get("data")
    if not isinstance(rows, list) or len(rows) != wanted:
        found = len(rows) if isinstance(rows, list) else 0
        raise MalformedReplyError(f"The reply holds {found} vectors for {wanted} texts.")
    vectors: dict[int, Vector] = {}
    for place, row in enumerate(rows):
        index = mapping(row).get("index", place)
        if not isinstance(index, int) or not 0 <= index < wanted or index in vectors:
            raise MalformedReplyError("The reply's vectors are not numbered from 0 on, each once.")
        vectors[index] = _vector(mapping(row).get("embedding"))
    usage = mapping(document.get("usage"))
    cost = amount(usage.get("cost")) or None
    return Embeddings(tuple(vectors[i] for i in range(wanted)), Usage(count(usage.get("prompt_tokens")), None, cost))


def _vector(numbers: object) -> Vector:
    if not isinstance(numbers, list) or not 0 < len(numbers) <= _LONGEST_VECTOR:
        raise MalformedReplyError(f"A vector of the reply is no list of 1 to {_LONGEST_VECTOR} numbers.")
    try:
        vector = tuple(float(number) for number in numbers if type(number) in (int, float))
    except OverflowError:  # JSON knows whole numbers of any size
        vector = ()
    if len(vector) != len(numbers) or not all(map(math.isfinite, vector)):
        raise MalformedReplyError("A vector of the reply holds something that is no finite number.")
    return vector
