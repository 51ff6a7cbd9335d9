"""A model that runs here as a chat model: the engine answers in a thread, its chunks are handed to the event loop."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from agentlab.config.workspace import Workspace
from agentlab.errors import BadRequestError
from agentlab.llm.types import Delta, Request, Usage
from agentlab.workers.chat import ChatEngine, ChatRequest, Chunk

_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


class LocalModel:
    """Serves one engine. Questions that come while it answers wait their turn."""

    def __init__(self, engine: ChatEngine, *, seconds: float, grammar: bool) -> None:
        """`seconds` is the safety net for one answer; `grammar` says whether the engine enforces schemas."""
        self._engine = engine
        self._seconds = seconds
        self._grammar = grammar
        self._turn = asyncio.Lock()  # first come, first served, which the engine's own lock is not

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Answer piece by piece. Leaving early, by cancellation too, stops the engine at its next token."""
        question = self._question(request)
        async with self._turn, aclosing(self._answer(question)) as chunks:
            async for chunk in chunks:
                yield _delta(chunk)

    async def _answer(self, question: ChatRequest) -> AsyncGenerator[Chunk, None]:
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue()
        left = threading.Event()

        def hand_over(item: Chunk | Exception | None) -> None:
            if not left.is_set():  # afterwards nobody listens, and the loop may be closed
                loop.call_soon_threadsafe(chunks.put_nowait, item)

        def answer() -> None:
            try:
                for chunk in self._engine.chat(question, cancelled=left.is_set):
                    hand_over(chunk)
            except Exception as error:  # noqa: BLE001 - raised again where the answer is awaited
                hand_over(error)
            else:
                hand_over(None)

        # a daemon: a process that is told to leave at once must not wait for an answer
        threading.Thread(target=answer, name="agentlab-local-model", daemon=True).start()
        try:
            while (item := await chunks.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            left.set()

    def _question(self, request: Request) -> ChatRequest:
        if request.tools or any(message.tool_calls or message.role == "tool" for message in request.messages):
            raise BadRequestError(
                f"The local model {request.model} cannot call tools.", hint="Ask for a schema, or use another model."
            )
        wanted = _ANY_OBJECT if request.json_only and request.schema is None else request.schema
        return ChatRequest(
            messages=[{"role": message.role, "content": message.content} for message in request.messages],
            schema=wanted if self._grammar else None,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=request.seed,
            seconds=self._seconds,
            stop=request.stop,
            top_p=request.top_p,
            clamp=True,
        )

    async def close(self) -> None:
        """End the worker process."""
        await asyncio.to_thread(self._engine.close)


def adapter_place(name: str, workspace: Workspace) -> Path:
    """Where an adapter of a config lies: a path, relative ones from the workspace, or a name in `adapters/`."""
    is_path = "/" in name or "\\" in name or name.startswith("~")
    return workspace.resolve(name) if is_path else workspace.adapters / name


def _delta(chunk: Chunk) -> Delta:
    usage = None if chunk.finish is None else Usage(chunk.prompt_tokens, chunk.completion_tokens)
    return Delta(chunk.text, chunk.finish, usage)
