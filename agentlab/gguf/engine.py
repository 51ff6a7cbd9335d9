"""How a GGUF model is loaded. `process.py` serves it from a worker process."""

from dataclasses import dataclass
from pathlib import Path


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
