"""How much memory a GGUF model takes under llama.cpp on a CPU. Pure.

Weights as stored (mapped from the file, shared between workers), the attention cache

    KV = sum over layers of cells * heads_kv * (key_length + value_length) * 2 bytes,   cells = context up to 256s

and the compute buffer of one batch of u tokens without flash attention, fitted on llama.cpp's own log for Llama-type
models (error below 1 % on SmolLM2): with H heads, E embedding, F feed-forward, V vocabulary and n the context,

    C = max(4u((H + 1)n + 4E + F), 4(uV + u(n + 4E + F))).

Sliding windows and recurrent layers need less than this says.
"""

from dataclasses import dataclass

from agentlab.gguf.metadata import GgufMetadata

_CELL_BYTES = 2  # the cache is kept in float16
_PADDING = 256
_PROCESS_BYTES = 50 << 20  # interpreter, numpy and llama_cpp, measured
_VOCABULARY_BYTES = 450  # per token, with its merges, measured


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes. `compute` is reserved at load; a short prompt touches only a part of it."""

    weights: int
    cache: int
    compute: int
    process: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.compute + self.process


def estimate(metadata: GgufMetadata, context: int, batch: int = 128) -> MemoryEstimate:
    """Memory of one worker with this model.

    Args:
        metadata: of the file.
        context: tokens that prompt and answer may have together, at least 1.
        batch: tokens evaluated at once, at least 1.

    Raises:
        ValueError: context or batch below 1.
    """
    if context < 1 or batch < 1:
        raise ValueError("context and batch are at least 1")
    cells = -(-context // _PADDING) * _PADDING
    row = (metadata.key_length + metadata.value_length) * _CELL_BYTES
    tokens = min(batch, context)
    wide = 4 * metadata.embedding + max(metadata.feed_forward, default=0)
    attention = 4 * tokens * ((metadata.heads + 1) * cells + wide)
    logits = 4 * tokens * (metadata.vocabulary + cells + wide)
    return MemoryEstimate(
        weights=metadata.weight_bytes,
        cache=cells * row * sum(metadata.heads_kv),
        compute=max(attention, logits),
        process=_PROCESS_BYTES + _VOCABULARY_BYTES * metadata.vocabulary,
    )
