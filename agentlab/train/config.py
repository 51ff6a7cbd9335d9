"""How adapters are trained: their shape, and the training itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from agentlab.config.base import StrictModel, budget_field, machine_field

Precision = Literal["auto", "fp32", "bf16", "8bit", "4bit"]
Attention = Literal["sdpa", "eager", "flash_attention_2"]
Figures = Literal["float32", "bfloat16"]  # the type that figures are computed in
Tell = Callable[[str, Mapping[str, Any]], None]


class LoraConfig(StrictModel):
    """The shape of an adapter (arXiv 2106.09685)."""

    r: int = Field(16, ge=1, le=512, description="Rank.")
    alpha: float | None = Field(
        None, gt=0, le=4096, description="The scale is alpha / rank; null sets alpha to twice the rank."
    )
    rslora: bool = Field(False, description="Scale by alpha over the square root of the rank (arXiv 2312.03732).")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input during training.")
    targets: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear",
        description="Modules that get an adapter, such as q_proj; all-linear selects every linear layer except "
        "the head.",
    )
    frozen_a: bool = Field(False, description="Train only B: adapters with the same seed share A and blend exactly.")

    @property
    def scaled_alpha(self) -> float:
        """Alpha, its default filled in."""
        return 2.0 * self.r if self.alpha is None else self.alpha


class TrainingConfig(StrictModel):
    """One training. The defaults suit an adapter of a small model; TRL's defaults are for full fine-tuning."""

    epochs: float = budget_field(3.0, gt=0, le=1000, description="Passes over the conversations.")
    batch_size: int = Field(8, ge=1, le=4096, description="Conversations per step and device.")
    grad_accum: int = Field(1, ge=1, le=4096, description="Gradient accumulation steps.")
    lr: float = Field(2e-4, gt=0, le=1, description="Learning rate.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Learning rate schedule after the warm-up."
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="Warm-up as a share of the steps.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="Weight decay of the adapter.")
    max_grad_norm: float = Field(1.0, gt=0, le=1000, description="Maximum gradient norm.")
    max_length: int = Field(
        1024,
        ge=32,
        le=1 << 20,
        description="Maximum tokens per conversation; the oldest turns beyond that are dropped.",
    )
    batching: Literal["auto", "packed", "sorted"] = Field(
        "auto",
        description="packed: several conversations per row; sorted: rows of similar length; auto: sorted on a CPU.",
    )
    precision: Precision = machine_field(
        "auto", description="Precision of the base model; auto: bf16 where it is fast."
    )
    attn_implementation: Attention = machine_field("sdpa", description="attn_implementation, passed to transformers.")
    gradient_checkpointing: Literal["auto", "on", "off"] = machine_field(
        "auto", description="Recompute activations to save memory; auto: only if the memory estimate requires it."
    )
    eval_fraction: float = Field(0.1, ge=0, lt=0.9, description="Share of the conversations to hold out.")
    evals: int = Field(4, ge=1, le=1000, description="Number of evaluations on the held-out conversations.")
    patience: int | None = Field(
        None, ge=1, description="Stop after this many evaluations without improvement; null never stops early."
    )

    @model_validator(mode="after")
    def _held_out(self) -> "TrainingConfig":
        if self.patience is not None and self.eval_fraction == 0:
            raise ValueError("patience requires held-out conversations: set eval_fraction above 0")
        return self


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """A training to be done.

    `tell` hears `train.step` (step, steps, epoch, loss, lr, tokens, tokens_per_second) and `train.eval` (step, steps,
    loss, best). After a resume, what came after the checkpoint is told again.
    """

    lora: LoraConfig
    training: TrainingConfig  # more `epochs` than before go on with a training that was over
    folder: Path  # for checkpoints and the adapter; where it holds a whole checkpoint, that is the beginning
    seed: int  # of A, the order and dropout
    tell: Tell = lambda _type, _data: None
    stopped: Callable[[], bool] = lambda: False  # asked after every step; one process that is stopped stops all of them
