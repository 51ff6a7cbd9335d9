"""How much memory a training of an adapter takes, by closed form. Pure.

With h the hidden size, f the feed-forward size, q and k the widths of queries and of keys (or values), r the rank and
w the bytes of a computed number, one layer keeps for the backward pass, per token,

    w (4h + 3q + 4k + 4f)    inputs and outputs of the norms, of attention and of the gated feed-forward
    + 8h                     the norms' own copies in float32
    + w r m                  the products of A, for m adapted modules

and attention without a fused kernel another w * heads * tokens of the row. Gradient checkpointing keeps w * h per token
and layer, and one layer's whole share while that layer is computed again. At the learnt tokens the head takes its
logits: once in w bytes, and twice in float32 with the gradient.

Fitted to the peaks of SmolLM2-135M on a CPU with 8 rows of 96 tokens, in float32 and bfloat16, with checkpointing and
without, which it meets within 3 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agentlab.hf.checkpoint import loading, read_config
from agentlab.train.config import LoraConfig, TrainingConfig
from agentlab.train.data_report import TokenCounts
from agentlab.train.schedule import resolve_batching, side_by_side

_WEIGHT = {"fp32": 4.0, "bf16": 2.0, "8bit": 1.02, "4bit": 0.52}  # bytes, with the scales of quantised blocks
_PROCESS_BYTES = 830 << 20  # interpreter, torch, transformers, PEFT and TRL, measured
_BETWEEN = 1.3  # what the allocator and the products of adapters take beside what is kept, fitted
_ROOM = 0.9  # of a memory, that may be taken
_MODULES = 7  # of a layer: queries, keys, values, output, gate, up, down


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a Llama-type decoder that decide memory; of another type, close to them."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_width: int
    feed_forward: int
    vocabulary: int
    tied: bool

    @classmethod
    def of(cls, config: Any) -> "ModelShape":
        """From a model's configuration, as transformers has it."""
        text = config.get_text_config()
        hidden, heads = text.hidden_size, text.num_attention_heads
        return cls(
            layers=text.num_hidden_layers,
            hidden=hidden,
            heads=heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_width=getattr(text, "head_dim", None) or hidden // heads,
            feed_forward=getattr(text, "intermediate_size", None) or 4 * hidden,
            vocabulary=text.vocab_size,
            tied=bool(config.tie_word_embeddings),
        )

    @property
    def _linear(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of a layer's modules."""
        h, f, q, k = self.hidden, self.feed_forward, self.heads * self.head_width, self.kv_heads * self.head_width
        return (h, q), (h, k), (h, k), (q, h), (h, f), (h, f), (f, h)

    @property
    def linear_weights(self) -> int:
        """Weights of the layers' matrices: what is quantised, and what an adapter can change."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self._linear)

    @property
    def table_weights(self) -> int:
        """Weights of embeddings and head."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    def adapter_weights(self, rank: int) -> int:
        return self.layers * rank * sum(inputs + outputs for inputs, outputs in self._linear)

    def b_weights(self, rank: int) -> int:
        return self.layers * rank * sum(outputs for _, outputs in self._linear)


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes. `adapter` are its weights, gradients and Adam's two moments; `head` the logits of the learnt tokens."""

    base: int
    adapter: int
    activations: int
    head: int
    process: int
    checkpointing: bool

    @property
    def total(self) -> int:
        """The peak, in the middle of a step."""
        return self.base + self.adapter + self.activations + self.head + self.process


def read_shape(path: Path) -> ModelShape:
    """The shape of a checkpoint folder's model; nothing is loaded.

    Raises:
        ModelFileError: config.json is missing, damaged, or not of such a model.
    """
    from transformers import AutoConfig

    read_config(path)
    with loading(f"{path / 'config.json'} does not give the model's shape"):
        return ModelShape.of(AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False))


def training_memory(
    shape: ModelShape,
    lora: LoraConfig,  # counted as if the adapter changed all modules
    training: TrainingConfig,
    precision: str,  # of the base: fp32, bf16, 8bit or 4bit
    *,
    longest: int,  # tokens of a batch's rows, at most
    learnt: float = 1.0,  # share of the tokens that are learnt
    adapters: int = 1,  # that are trained in the same steps; an A that does not learn is there once
    memory: int,  # bytes of the device
) -> TrainingMemory:
    """What a training takes at its peak, with checkpointing as configured; `auto`: if it would not fit without."""
    width = 4 if precision == "fp32" else 2
    tokens = training.batch_size * longest
    layer = int(_BETWEEN * tokens * _kept_per_token(shape, lora.r, width))
    if training.attn_implementation == "eager":
        layer += 2 * width * tokens * shape.heads * longest
    outline = tokens * width * shape.hidden * shape.layers
    learning = shape.b_weights(lora.r) if lora.frozen_a else shape.adapter_weights(lora.r)
    plain = TrainingMemory(
        base=int(shape.linear_weights * _WEIGHT[precision] + shape.table_weights * width),
        adapter=4 * (shape.adapter_weights(lora.r) + (4 * adapters - 1) * learning),
        activations=layer * shape.layers,
        head=int(tokens * learnt * shape.vocabulary * (width + 8)),
        process=_PROCESS_BYTES,
        checkpointing=False,
    )
    fits = plain.total <= _ROOM * memory
    if training.gradient_checkpointing == "off" or (training.gradient_checkpointing == "auto" and fits):
        return plain
    return replace(plain, activations=outline + layer, checkpointing=True)


def _kept_per_token(shape: ModelShape, rank: int, width: int) -> int:
    q, k = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    return width * (4 * shape.hidden + 3 * q + 4 * k + 4 * shape.feed_forward + rank * _MODULES) + 8 * shape.hidden


def run_memory(
    shape: ModelShape,
    lora: LoraConfig,
    training: TrainingConfig,
    precision: str,
    data: Sequence[TokenCounts],  # what each adapter learns from
    *,
    together: bool,  # in the same steps, or one after another; then the largest training counts
    device: str,  # cuda, mps or cpu
    memory: int,  # bytes of it
) -> TrainingMemory:
    """What a run takes at its peak that trains an adapter on each of `data`: plan and run go by the same number.

    Other arguments are as for `training_memory`.
    """
    if not together:
        alone = (
            run_memory(shape, lora, training, precision, [counts], together=True, device=device, memory=memory)
            for counts in data
        )
        return max(alone, key=lambda estimate: estimate.total)
    at_once = len(data) if side_by_side(training, device) else 1
    packed = resolve_batching(training, device) == "packed"
    return training_memory(
        shape,
        lora,
        training.model_copy(update={"batch_size": training.batch_size * at_once}),
        precision,
        longest=training.max_length if packed else max(counts.longest for counts in data),
        learnt=sum(counts.learnt for counts in data) / sum(counts.total for counts in data),
        adapters=len(data),
        memory=memory,
    )
