"""How a GGUF model is loaded. `process.py` serves it from a worker process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agentlab.errors import ConfigError

KvType = Literal["f16", "q8_0", "q4_0"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How a model is loaded. `flash`, `repack`, `kv_type` and `batch` change the last bits of logits: fix them per run.

    `flash` and `repack` are what is wished for: an engine that has `trusted_settings.Proofs` uses what it found to be
    sound. A batch of 128 prefills as fast as 512 on a CPU (measured: 153 against 143 tokens/s) with a quarter of the
    buffers. `memory_bytes` bounds private memory (buffers, cache, heap; not the file's mapped weights) beyond what the
    worker holds when it begins to load, on Linux only; None: unbounded.
    """

    path: Path
    context: int = 2048  # tokens of prompt and answer together
    threads: int = 1
    batch: int = 128  # tokens read at once
    gpu_layers: int = 0  # -1 for all
    flash: bool = False  # flash attention
    repack: bool = False  # copy weights into a layout that the processor multiplies faster (llama.cpp's extra buffers)
    kv_type: KvType = "f16"  # of the attention cache; what is smaller than f16 needs `flash`
    adapter: Path | None = None  # a GGUF file with a LoRA adapter for this model
    load_seconds: float = 120.0  # at most
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for an attention cache that llama.cpp cannot use."""
        if self.kv_type != "f16" and not self.flash:
            raise ConfigError(
                f"A KV cache of type {self.kv_type} needs flash attention.",
                hint="Enable flash attention, or use an f16 cache.",
            )
