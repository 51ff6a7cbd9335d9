"""How much memory a GGUF model takes under llama.cpp, by closed form. Pure.

Per token of a batch, in bytes: R = 4 * embedding, Q = 4 * heads * key_length, K and V = 4 * heads_kv * key_length and
value_length, F = 4 * feed_forward (of mixtures: of the experts in use). With n the context, the compute buffer of a
batch of u tokens, of which one gets logits, is

    flash attention off    C = u * max(4(heads + 1)n + 3R + 2Q + K + V, 4n + 3F + 3R + K + V)
    flash attention on     C = u * (2n + 3F + 4R); 3R with a quantised cache whose heads llama.cpp rotates

fitted to llama.cpp's dry run (0.3.34 of the binding) on the shapes of eight Llama-type models from 135M to 8B, which
it meets within 0.2 %. Others deviate; `dry_run` asks the engine itself. The attention cache is, with rows stored in
blocks of the cache's type,

    sum over layers of cells * heads_kv * (row of key_length + row of value_length),   cells = context up to 256s.

Sliding windows save nothing: the engine keeps every position of those layers too. Models that compress keys and values
(MLA) keep one row per cell and layer; recurrent layers keep 4((conv - 1)(inner + 2 groups * state) + state * inner)
bytes whatever the context.

Without flash attention the CPU takes another 2un * heads for the attention weights in float16. Where weights are
repacked, those of some types are copied into a layout that suits the CPU, besides the file's pages: a few types in the
size they have (measured), or on processors with AMX most types, some with a few bytes more per block (from llama.cpp's
source, ggml-cpu/amx/mmq.cpp; the one measurement, 294 MiB where 212 were planned without, agrees). What goes to a GPU
is counted by its share of the layers; that part is arithmetic, not measured.
"""

from dataclasses import astuple, dataclass, replace
from typing import Literal

from agentlab.gguf.engine import KvType
from agentlab.gguf.metadata import GgufMetadata

_BLOCKS = {"f16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18)}  # elements, bytes
_PADDING = 256
_ROTATED = 64  # a quantised cache's heads are rotated where their length is a multiple of this
# Types that are copied into a buffer of that name when weights are repacked, and the copy's size over the original's.
# AMX goes first where a processor and a build have it; it leaves the others' types to them.
_REPACKED = {"Q4_0": 1.0, "Q4_K": 1.0, "Q2_K": 1.0, "IQ4_NL": 1.0, "MXFP4": 1.0}  # on CPUs with AVX2 or AVX512
_AMX = {"Q4_0": 1.0, "Q4_1": 1.0, "Q6_K": 1.0, "F16": 1.0}
_AMX |= {"Q8_0": 38 / 34, "Q4_K": 148 / 144, "Q5_K": 180 / 176, "IQ4_XS": 138 / 136}
COPIES = {"AMX": _REPACKED | _AMX, "CPU_REPACK": _REPACKED, "": {}}
_PROCESS_BYTES = 42 << 20  # interpreter, numpy and llama_cpp, measured
_VOCABULARY_BYTES = 420  # per token, with its merges, measured


@dataclass(frozen=True, slots=True)
class MemoryShape:
    """What decides memory besides the file; see `EngineConfig`."""

    context: int
    batch: int
    flash: bool
    kv_type: KvType = "f16"
    gpu_layers: int = 0
    repack: bool = True

    def __str__(self) -> str:
        """As it stands in the name of a record."""
        return " ".join(str(value) for value in astuple(self))

    def __post_init__(self) -> None:
        """Raises ValueError for what no engine can be made with."""
        if self.context < 1 or self.batch < 1 or self.gpu_layers < -1:
            raise ValueError("context and batch must be at least 1, and gpu_layers at least -1")
        if self.kv_type not in _BLOCKS:
            raise ValueError(f"{self.kv_type} is not a KV cache type")
        if self.kv_type != "f16" and not self.flash:
            raise ValueError(f"a KV cache of type {self.kv_type} needs flash attention")


@dataclass(frozen=True, slots=True)
class Buffers:
    """What the engine itself says it would take, in bytes; see `dry_run`."""

    cache: int  # attention cache and recurrent states, wherever they lie
    compute: int  # compute buffers in main memory
    compute_gpu: int
    process: int | None  # the worker with the vocabulary, before it holds any of these; None where not measurable
    copies: str  # which buffer it copies weights into when they are repacked; see `COPIES`


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes of one worker with this model."""

    weights: int  # tensors as stored; in main memory they are pages of the file, which workers share
    repacked: int  # a second, private copy of some of them; the pages it was made of stay mapped, and may be dropped
    cache: int  # attention cache and recurrent states
    compute: int  # buffer of the graph's intermediate results
    work: int  # what the CPU's kernels need besides
    process: int  # the worker without a model, and the vocabulary
    offloaded: float  # share of weights and cache that lies on a GPU, 0 to 1
    compute_gpu: int
    source: Literal["formula", "dry run"]

    @property
    def resident(self) -> int:
        """Peak in main memory when the context is used up: what admission has to count."""
        in_host = (self.weights + self.repacked + self.cache) * (1 - self.offloaded)
        return int(in_host) + self.compute + self.work + self.process

    @property
    def vram(self) -> int:
        return int((self.weights + self.cache) * self.offloaded) + self.compute_gpu


def estimate(metadata: GgufMetadata, shape: MemoryShape, planned: Buffers | None = None) -> MemoryEstimate:
    """Memory of one worker with this model: by the formulas, or as far as the engine has `planned` it in a dry run.

    `metadata`: of the file, or of all its parts.
    """
    tokens, cells = min(shape.batch, shape.context), _cells(shape.context)
    compute = tokens * (_flash_row if shape.flash else _row)(metadata, shape, cells) + _rotations(metadata, shape)
    offloaded = _offloaded_share(metadata, shape)
    formula = MemoryEstimate(
        weights=metadata.weight_bytes,
        repacked=_repacked_bytes(metadata, shape, "CPU_REPACK"),
        cache=_cache(metadata, shape, cells),
        compute=compute,
        work=0 if shape.flash else 2 * tokens * cells * metadata.heads,
        process=_PROCESS_BYTES + _VOCABULARY_BYTES * metadata.vocabulary,
        offloaded=offloaded,
        compute_gpu=compute if offloaded else 0,
        source="formula",
    )
    if planned is None:
        return formula
    return replace(
        formula,
        repacked=_repacked_bytes(metadata, shape, planned.copies),
        cache=planned.cache,
        compute=planned.compute,
        process=formula.process if planned.process is None else planned.process,
        # a build or a machine may have no GPU, whatever was asked for
        offloaded=offloaded if planned.compute_gpu else 0.0,
        compute_gpu=planned.compute_gpu,
        source="dry run",
    )


def _cells(context: int) -> int:
    """Positions that an attention cache has room for."""
    return -(-context // _PADDING) * _PADDING


def _offloaded_share(metadata: GgufMetadata, shape: MemoryShape) -> float:
    """The output layer counts as one, as in llama.cpp."""
    layers = metadata.layers + 1
    return 1.0 if shape.gpu_layers == -1 else min(shape.gpu_layers, layers) / layers


def _row(metadata: GgufMetadata, _: MemoryShape, cells: int) -> int:
    """Bytes of the compute buffer per token of a batch, without flash attention."""
    residual, heads_kv = 4 * metadata.embedding, max(metadata.heads_kv, default=0)
    query = 4 * metadata.heads * metadata.key_length
    keys_values = 4 * heads_kv * (metadata.key_length + metadata.value_length)
    attention = 4 * (metadata.heads + 1) * cells + 3 * residual + 2 * query + keys_values
    return max(attention, 4 * cells + 12 * _width(metadata) + 3 * residual + keys_values)


def _flash_row(metadata: GgufMetadata, shape: MemoryShape, cells: int) -> int:
    """The same with flash attention, which keeps no attention weights."""
    residual = 4 * metadata.embedding
    return 2 * cells + 12 * _width(metadata) + (3 if _rotates(metadata, shape) else 4) * residual


def _width(metadata: GgufMetadata) -> int:
    return max(*metadata.feed_forward, metadata.expert_width, 0)


def _rotates(metadata: GgufMetadata, shape: MemoryShape) -> bool:
    return shape.kv_type != "f16" and metadata.key_length % _ROTATED == 0


def _rotations(metadata: GgufMetadata, shape: MemoryShape) -> int:
    """Bytes of the rotation matrices of keys and values."""
    return 4 * (metadata.key_length**2 + _ROTATED**2) if _rotates(metadata, shape) else 0


def _cache(metadata: GgufMetadata, shape: MemoryShape, cells: int) -> int:
    block, size = _BLOCKS[shape.kv_type]

    def row(elements: int) -> int:
        return -(-elements // block) * size

    if metadata.latent_length:
        attention = cells * metadata.layers * row(metadata.latent_length)
    else:
        keys = sum(row(heads * metadata.key_length) for heads in metadata.heads_kv)
        values = sum(row(heads * metadata.value_length) for heads in metadata.heads_kv)
        attention = cells * (keys + values)
    return attention + metadata.state_bytes


def _repacked_bytes(metadata: GgufMetadata, shape: MemoryShape, copies: str) -> int:
    ratios = COPIES[copies] if shape.repack else {}
    return int(sum(size * ratios.get(kind, 0) for kind, size in metadata.multiplied.items()))
