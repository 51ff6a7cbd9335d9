"""The seam to a local model in GGUF format. `process.py` serves it from a worker process."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How a model is loaded. `threads` and `batch` are fixed per run, because they change the last bits of logits.

    `batch` 128 prefills as fast as 512 on a CPU (measured: 153 against 143 tokens/s) with a quarter of the buffers.
    """

    path: Path
    context: int = 2048
    threads: int = 1
    batch: int = 128
    gpu_layers: int = 0
    reuse_prefix: bool = False  # off: each call starts from an empty sequence and is reproducible
    load_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat completion. `schema` is a JSON schema that the decoder enforces; `seconds` is a safety net."""

    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer. The last one has `finish` ("stop" or "length") and both token counts."""

    text: str = ""
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class GgufEngine(Protocol):
    """A loaded model. One call at a time; a second caller waits."""

    def chat(self, request: ChatRequest, *, cancelled: Callable[[], bool] = lambda: False) -> Iterator[Chunk]:
        """Stream an answer.

        Raises:
            MissingFileError: no such file.
            ModelFileError: the file cannot be loaded, or holds no chat template.
            MissingExtraError: llama-cpp-python is absent or broken.
            BadRequestError: the messages or the schema cannot be used with this model.
            WorkerDiedError: the process died; the next call starts a new one.
            LLMTimeoutError: `request.seconds` ran out.
            LLMCancelledError: `cancelled` returned True.
            ContextOverflowError: prompt and answer do not fit the context.
        """
        ...

    def close(self) -> None:
        """Stop the process and free the memory. Safe to call twice."""
        ...
