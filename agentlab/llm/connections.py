"""The models of a config, made when they are first asked."""

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

from agentlab.config.workspace import Workspace
from agentlab.errors import BadRequestError
from agentlab.llm import providers
from agentlab.llm.config import LLMConfig
from agentlab.llm.types import ChatModel, Delta, EmbeddingModel, ModelRequest, ToolPiece
from agentlab.runs.redact import Redactor, StreamMask

LOG = logging.getLogger("agentlab.llm")


class MaskedModel:
    """Implements `ChatModel` around another: a key that its answer holds, whole or in pieces, goes no further."""

    def __init__(self, model: ChatModel, redactor: Redactor) -> None:
        self._model = model
        self._redactor = redactor

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta]:
        """Pass the answer on, piece by piece; what may be the beginning of a key waits for the next one."""
        text, reasoning = self._redactor.stream(), self._redactor.stream()
        arguments: defaultdict[int, StreamMask] = defaultdict(self._redactor.stream)
        stream = self._model.stream(request)
        try:
            async for delta in stream:
                yield replace(
                    delta,
                    text=text.piece(delta.text),
                    reasoning=reasoning.piece(delta.reasoning),
                    tools=tuple(self._masked_tool(piece, arguments[piece.index]) for piece in delta.tools),
                )
            ends = ((index, mask.end()) for index, mask in arguments.items())
            tools = tuple(ToolPiece(index, arguments=end) for index, end in ends if end)
            last_delta = Delta(text.end(), reasoning=reasoning.end(), tools=tools)
            if last_delta.text or last_delta.reasoning or last_delta.tools:
                yield last_delta
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    def _masked_tool(self, piece: ToolPiece, mask: StreamMask) -> ToolPiece:
        id_, name = self._redactor.mask(piece.id), self._redactor.mask(piece.name)
        return ToolPiece(piece.index, id_, name, mask.piece(piece.arguments))

    async def close(self) -> None:
        await self._model.close()


class LoggedChatModel:
    """Implements `ChatModel` around another: whoever listens to the logger `agentlab.llm` hears it word for word.

    Rejected and broken-off answers are heard, too; secrets are masked.
    """

    def __init__(self, name: str, model: ChatModel, redactor: Redactor) -> None:
        self._name = name
        self._model = model
        self._redactor = redactor

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta]:
        turns = "\n".join(f"[{message.role}]\n{message.content}" for message in request.messages)
        sampling = f"temperature {request.temperature:g}, at most {request.max_tokens} tokens"
        self._say(f"asking {self._name} ({request.model}), {sampling}\n{turns}")
        start, parts, stream = time.perf_counter(), [], self._model.stream(request)
        try:
            async for delta in stream:
                parts.append(delta.text)
                yield delta
        finally:
            self._say(f"{self._name} answered in {time.perf_counter() - start:.2f} s\n{''.join(parts)}")
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    async def close(self) -> None:
        await self._model.close()

    def _say(self, text: str) -> None:
        LOG.debug("%s", self._redactor.scrub(text))


@dataclass
class Connections:
    """One object per provider, whichever of its models is meant; `stand_ins` are used instead of those they name."""

    config: LLMConfig
    env: Mapping[str, str]
    workspace: Workspace
    redactor: Redactor
    stand_ins: Mapping[str, ChatModel]

    def __post_init__(self) -> None:
        clocks, threads = self.config.defaults.timeout, self.config.threads
        self._provider_context = providers.ProviderContext(self.env, self.workspace, clocks, threads)
        self._built: dict[str, ChatModel] = {}
        self._building = threading.Lock()  # `check` builds in the caller's thread, calls in their loop

    def model(self, name: str) -> ChatModel:
        """Who answers for a model of the config. Raises MissingError or UnknownNameError if it lacks what it needs."""
        model = MaskedModel(self._model(name), self.redactor)
        return LoggedChatModel(name, model, self.redactor) if LOG.isEnabledFor(logging.DEBUG) else model

    def embedder(self, name: str) -> EmbeddingModel:
        """Who makes the vectors of a model; errors as of `model`, and BadRequestError if its provider makes none."""
        model = self._model(name)
        if not callable(getattr(model, "embed", None)):
            raise BadRequestError(
                "This provider does not support embeddings.",
                hint="Use a model from an openai_compat provider, such as nomic-embed-text on an Ollama server.",
            )
        return cast(EmbeddingModel, model)

    def _model(self, name: str) -> ChatModel:
        if name in self.stand_ins:
            return self.stand_ins[name]
        provider = self.config.models[name].provider
        with self._building:
            if provider not in self._built:
                self._built[provider] = providers.build(
                    provider, self.config.providers[provider], self._provider_context
                )
            return self._built[provider]

    async def close(self) -> None:
        await asyncio.gather(*(model.close() for model in (*self._built.values(), *self.stand_ins.values())))
