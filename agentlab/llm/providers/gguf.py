"""A GGUF file as a chat model: the engine answers in a thread, its chunks are handed to the event loop."""

import asyncio
import threading
from collections.abc import AsyncIterator

from agentlab import machine
from agentlab.errors import ConfigError
from agentlab.gguf.engine import ChatRequest, Chunk, EngineConfig, GgufEngine
from agentlab.gguf.process import WorkerEngine
from agentlab.llm.config import GgufProvider
from agentlab.llm.providers import Surroundings
from agentlab.llm.types import Delta, Request, Usage
from agentlab.models import store


def build(name: str, provider: GgufProvider, surroundings: Surroundings) -> "GgufModel":
    """The factory of the table in `agentlab.llm.providers`. The worker process starts with the first question."""
    path = store.find(provider.model_path, surroundings.workspace)
    if not path.is_file():
        raise ConfigError(
            f"llm.providers.{name}.model_path: {path} is a folder, not a GGUF file.",
            hint="`agentlab models list` shows the GGUF files that are there.",
        )
    # half of the cores: a thread that waits for a busy core is ruinous, and the other half may be training
    engine = WorkerEngine(EngineConfig(path, context=provider.context, threads=machine.threads(workers=2)))
    return GgufModel(engine, seconds=provider.total)


class GgufModel:
    """Serves one engine. Questions that come while it answers wait their turn."""

    def __init__(self, engine: GgufEngine, *, seconds: float) -> None:
        """`seconds` is the safety net for one answer."""
        self._engine = engine
        self._seconds = seconds

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Answer piece by piece. Leaving early, by cancellation too, stops the engine at its next token."""
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue()
        left = threading.Event()
        question = ChatRequest(
            messages=[{"role": message.role, "content": message.content} for message in request.messages],
            schema=request.schema,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=request.seed,
            seconds=self._seconds,
        )

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
        threading.Thread(target=answer, name="agentlab-gguf", daemon=True).start()
        try:
            while (item := await chunks.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield _delta(item)
        finally:
            left.set()

    async def close(self) -> None:
        """End the worker process."""
        await asyncio.to_thread(self._engine.close)


def _delta(chunk: Chunk) -> Delta:
    usage = None if chunk.finish is None else Usage(chunk.prompt_tokens, chunk.completion_tokens)
    return Delta(chunk.text, chunk.finish, usage)
