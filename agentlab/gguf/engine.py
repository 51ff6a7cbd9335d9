"""How a GGUF model is loaded. `process.py` serves it from a worker process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agentlab.errors import ConfigError

KvType = Literal["f16", "q8_0", "q4_0"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How a model is loaded. `flash`, `repack`, `kv_type` and `batch` change the last bits of logits: fix them per run.

    `flash` and `repack` are what is wished for: an engine that has a `proof.Proofs` uses what it found to be sound.

    Attributes:
        context: tokens of prompt and answer together.
        batch: tokens read at once. 128 prefills as fast as 512 on a CPU (measured: 153 against 143 tokens/s) with a
            quarter of the buffers.
        gpu_layers: layers on the GPU, -1 for all.
        flash: flash attention.
        repack: weights copied into a layout that the processor multiplies faster (llama.cpp's extra buffers).
        kv_type: how the attention cache is kept. What is smaller than f16 needs `flash`.
        adapter: a GGUF file with a LoRA adapter for this model.
        load_seconds: how long loading may take.
        memory_bytes: private memory (buffers, cache, heap; not the file's mapped weights) that the worker may take
            beyond what it holds when it begins to load. Bounded on Linux only; None: unbounded.
    """

    path: Path
    context: int = 2048
    threads: int = 1
    batch: int = 128
    gpu_layers: int = 0
    flash: bool = False
    repack: bool = False
    kv_type: KvType = "f16"
    adapter: Path | None = None
    load_seconds: float = 120.0
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for an attention cache that llama.cpp cannot use."""
        if self.kv_type != "f16" and not self.flash:
            raise ConfigError(
                f"An attention cache of type {self.kv_type} needs flash attention.",
                hint="Turn flash attention on, or keep the cache in f16.",
            )
