"""Models that run here as chat models: GGUF files and checkpoints of transformers, with an adapter if one is named.

The engine answers in a thread, its chunks are handed to the event loop.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from shlex import quote
from typing import Any

from agentlab import machine
from agentlab.config.workspace import Workspace
from agentlab.errors import BadRequestError, ConfigError, MissingFileError
from agentlab.gguf.engine import EngineConfig
from agentlab.gguf.metadata import read
from agentlab.gguf.process import WorkerEngine
from agentlab.gguf.trusted_settings import Proofs
from agentlab.hf.engine import CALLS, HfConfig, HfEngine
from agentlab.llm.provider_config import GgufProvider, HfProvider
from agentlab.llm.providers import ProviderContext
from agentlab.llm.types import Delta, ModelRequest, Usage
from agentlab.models import store
from agentlab.workers.chat import ChatEngine, Chunk, EngineRequest

LOG = logging.getLogger("agentlab.llm")
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
_WEIGHTS = "adapter_model.safetensors"


class LocalChatModel:
    """Serves one engine. Questions that come while it is busy wait their turn."""

    def __init__(
        self, engine: ChatEngine, *, seconds: float, grammar: bool, calls: int = 1, adapter: Path | None = None
    ) -> None:
        """`seconds` is the safety net for one answer; `grammar` says whether the engine enforces schemas.

        `calls` is how many questions it is asked at a time, `adapter` the one that answers, where it can exchange them.
        """
        self._engine = engine
        self._seconds = seconds
        self._grammar = grammar
        self._adapter = None if adapter is None else str(adapter.absolute())
        self._turns = asyncio.Semaphore(calls)  # first come, first served, which the engine's own is not

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta]:
        """Answer piece by piece. Leaving early, by cancellation too, stops the engine at its next token."""
        question = self._question(request)
        async with self._turns, aclosing(self._answer(question)) as chunks:
            async for chunk in chunks:
                if chunk.note is not None:
                    LOG.warning("%s", chunk.note)
                yield _delta(chunk)

    async def _answer(self, question: EngineRequest) -> AsyncGenerator[Chunk, None]:
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue()
        abandoned = threading.Event()

        def hand_over(item: Chunk | Exception | None) -> None:
            if not abandoned.is_set():  # afterwards nobody listens, and the loop may be closed
                loop.call_soon_threadsafe(chunks.put_nowait, item)

        def answer() -> None:
            try:
                for chunk in self._engine.chat(question, cancelled=abandoned.is_set):
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
            abandoned.set()

    def _question(self, request: ModelRequest) -> EngineRequest:
        if request.tools or any(message.tool_calls or message.role == "tool" for message in request.messages):
            raise BadRequestError(
                f"The local model {request.model} cannot call tools.", hint="Ask for a schema, or use another model."
            )
        schema = _ANY_OBJECT if request.json_only and request.schema is None else request.schema
        return EngineRequest(
            messages=[{"role": message.role, "content": message.content} for message in request.messages],
            schema=schema if self._grammar else None,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=request.seed,
            seconds=self._seconds,
            stop=request.stop,
            top_p=request.top_p,
            clamp=True,
            adapter=self._adapter,
        )

    async def close(self) -> None:
        await asyncio.to_thread(self._engine.close)


def adapter_place(name: str, workspace: Workspace) -> Path:
    """Where an adapter of a config lies: a path, relative ones from the workspace, or a name in `adapters/`."""
    is_path = "/" in name or "\\" in name or name.startswith("~")
    return workspace.resolve(name) if is_path else workspace.adapters / name


def _delta(chunk: Chunk) -> Delta:
    usage = None if chunk.finish is None else Usage(chunk.prompt_tokens, chunk.completion_tokens)
    return Delta(chunk.text, chunk.finish, usage)


def gguf(name: str, provider: GgufProvider, surroundings: ProviderContext) -> LocalChatModel:
    """A GGUF file, with a GGUF adapter. A factory of the table in `agentlab.llm.providers`.

    The worker process starts with the first question.
    """
    path = store.find(provider.model_path, surroundings.workspace)
    if path.is_dir():
        raise ConfigError(
            f"llm.providers.{name}.model_path: {path} is a folder, not a GGUF file.",
            hint="`agentlab models list` shows the GGUF files on this machine; a folder needs `kind: hf`.",
        )
    read(path)  # a broken file is said before any work
    adapter = None if provider.adapter is None else _gguf_adapter(name, provider.adapter, surroundings.workspace)
    # half of the cores: a thread that waits for a busy core is ruinous, and the other half may be training
    threads = machine.threads(surroundings.threads, workers=2)
    config = EngineConfig(path, context=provider.context, threads=threads, repack=True, adapter=adapter)
    return LocalChatModel(WorkerEngine(config, Proofs.of(surroundings.workspace)), seconds=provider.total, grammar=True)


def _gguf_adapter(provider: str, name: str, workspace: Workspace) -> Path:
    path, where = adapter_place(name, workspace), f"llm.providers.{provider}.adapter"
    if path.is_dir():
        raise ConfigError(
            f"{where}: {path} is a folder, but llama.cpp needs a GGUF file.",
            hint=f"`agentlab adapters export {quote(name)} --format gguf --out FILE` makes one; use `kind: hf` for the "
            "folder.",
        )
    adapter_file = path if path.suffix == ".gguf" or path.is_file() else path.with_name(f"{path.name}.gguf")
    if not adapter_file.is_file():
        raise MissingFileError(
            f"{where}: there is no adapter file {path}.",
            hint=f"`agentlab adapters export NAME --format gguf --out {quote(str(adapter_file))}` makes one.",
        )
    return adapter_file


def hf(name: str, provider: HfProvider, surroundings: ProviderContext) -> LocalChatModel:
    """A checkpoint of transformers, with a LoRA adapter; else as `gguf`."""
    where = f"llm.providers.{name}"
    path = store.find(provider.model_path, surroundings.workspace)
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        raise ConfigError(
            f"{where}.model_path: {path} is not a checkpoint folder with config.json and safetensors.",
            hint="`agentlab models import smollm2-135m` makes one from the embedded model; a GGUF file needs "
            "`kind: gguf`.",
        )
    adapter = None if provider.adapter is None else hf_adapter(where, provider.adapter, surroundings.workspace)
    threads = machine.threads(surroundings.threads, workers=2)  # half of the cores, as for a GGUF file
    config = HfConfig(path, provider.dtype, threads)
    engine = surroundings.engines.setdefault(config, HfEngine(config))
    return LocalChatModel(engine, seconds=provider.total, grammar=False, calls=CALLS, adapter=adapter)


def hf_adapter(where: str, name: str, workspace: Workspace) -> Path:
    """The folder of an adapter, with settings and weights; a message says `where` it was named.

    Raises:
        MissingFileError, ConfigError: it is not there, or is none.
    """
    path = adapter_place(name, workspace)
    if not (path / "adapter_config.json").is_file():
        raise MissingFileError(
            f"{where}.adapter: there is no adapter {path}.",
            hint=f"Adapters are folders with adapter_config.json, in {workspace.adapters} or given by their path.",
        )
    if not (path / _WEIGHTS).is_file():
        raise ConfigError(
            f"{where}.adapter: {path} has no {_WEIGHTS}.",
            hint="Weights in other formats can contain code and are not read; save the adapter as safetensors.",
        )
    return path
