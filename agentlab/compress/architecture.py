"""The decoders that can be compressed: dense Llama, Qwen2 and Qwen3, their linear layers and what these read.

Modules are named as in transformers: `model.layers.0.self_attn.q_proj`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch  # noqa: TID253 - reached lazily, when a model is compressed
from torch import Tensor  # noqa: TID253 - as above

from agentlab.compress.grid import Codes
from agentlab.errors import ModelFileError

KNOWN = ("llama", "qwen2", "qwen3")
_ROWS_LOOKED_AT = 64
Check = Callable[[], None]  # called at least once a layer; what it raises ends the work


@dataclass(frozen=True, slots=True)
class LayerInput:
    """What some linear layers of a decoder layer read, and the module before, which could scale it."""

    key: str  # in statistics
    readers: tuple[str, ...]
    before: str


INPUTS = (
    LayerInput("attention", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "input_layernorm"),
    LayerInput("heads", ("self_attn.o_proj",), "self_attn.v_proj"),
    LayerInput("mlp", ("mlp.gate_proj", "mlp.up_proj"), "post_attention_layernorm"),
    LayerInput("channels", ("mlp.down_proj",), "mlp.up_proj"),
)


def check_architecture(config: Any) -> None:
    """See that a model can be compressed, by its config.

    Raises:
        ModelFileError: it is of another architecture, or has layers of several kinds.
    """
    kind = str(getattr(config, "model_type", None))
    hint = f"Only dense models with full attention are supported, of type {', '.join(KNOWN)}."
    if kind not in KNOWN:
        raise ModelFileError(f"Models of type {kind} cannot be compressed.", hint=hint)
    if set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        raise ModelFileError(
            f"This {kind} model has layers with sliding-window attention, which cannot be compressed.", hint=hint
        )


def layers_of(model: Any) -> Any:
    """Its decoder layers."""
    return model.model.layers


def layer_name(index: int, module: str) -> str:
    """The name of a module of a decoder layer."""
    return f"model.layers.{index}.{module}"


def linears(model: Any) -> dict[str, torch.nn.Linear]:
    """The linear layers of all decoder layers, by name; embedding and head are none of them."""
    readers = list(chain.from_iterable(layer_input.readers for layer_input in INPUTS))
    modules: dict[str, torch.nn.Linear] = {}
    for index, layer in enumerate(layers_of(model)):
        modules |= {layer_name(index, reader): layer.get_submodule(reader) for reader in readers}
    return modules


def on_a_grid(weight: Tensor) -> bool:
    """Whether a matrix (outputs, inputs) was of 4 bits once: 32 neighbours that have 16 values at most."""
    rows = weight[:_ROWS_LOOKED_AT, : weight.shape[1] // 32 * 32].reshape(-1, 32).sort(-1).values
    values = (rows.diff(dim=-1) != 0).sum(-1) + 1
    return bool(len(rows)) and bool((values <= 16).float().mean() > 0.99)


def frozen_copy(weight: Tensor) -> torch.nn.Parameter:
    """A parameter of its own, without the rest of what the weight is a part of."""
    return torch.nn.Parameter(weight.clone(), requires_grad=False)


@torch.no_grad()
def put_weights(model: Any, weights: Mapping[str, Tensor | Codes]) -> None:
    """Put matrices in place of those of linear layers; codes as what they stand for."""
    for name, value in weights.items():
        model.get_submodule(name).weight.copy_(value.weight() if isinstance(value, Codes) else value)
