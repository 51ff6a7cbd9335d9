"""Faster answers on a CPU: weights of linear layers in the block layout of oneDNN, whose products then copy nothing."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

import torch  # noqa: TID253 - reached lazily, where a model answers

from agentlab.errors import UsageError

_TYPES = {torch.float32, torch.bfloat16}


@contextmanager
def pack_weights(model: torch.nn.Module) -> Iterator[None]:
    """The model with packed weights inside the `with` block; afterwards it has its own again, to the bit.

    Forward hooks and PEFT's layers keep working. There is no second copy: inside the block a packed layer's `weight` is
    empty (but not one that is shared, such as an embedding), so it cannot be saved or merged there. Sums are added up
    in another order than before: logits differ by rounding. A model that this cannot help (on a GPU, quantised, in
    float16, or where torch has no oneDNN) is left as it is.

    Raises:
        UsageError: in the block, when a gradient is asked for.
    """
    # restored weights must be ordinary tensors, wherever the block begins and ends
    layers: list[tuple[Any, torch.Tensor]] = []
    try:
        with torch.inference_mode(False), torch.no_grad():
            for layer, is_shared in _layers(model):
                # the operators that torch.compile uses for frozen weights; torch has no public name for them
                weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.data)
                layers.append((layer, weight))
                layer.forward = partial(_product, weight, layer.bias)
                if not is_shared:
                    layer.weight.data = torch.empty(0, dtype=weight.dtype)
        yield
    finally:
        with torch.inference_mode(False), torch.no_grad():
            for layer, weight in layers:
                del layer.forward
                if not layer.weight.numel():
                    layer.weight.data = weight.to_dense()


def _layers(model: torch.nn.Module) -> list[tuple[Any, bool]]:
    """The layers that can be packed, and whether another module uses the weight of each."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call] # torch has no type for it
        return []
    parameters = chain.from_iterable(module.parameters(recurse=False) for module in model.modules())
    users = Counter(map(id, parameters))
    return [
        (module, users[id(module.weight)] > 1)
        for module in model.modules()
        if type(module) is torch.nn.Linear and _fits(module._parameters.get("weight"))  # a subclass has another kind
    ]


def _fits(weight: torch.Tensor | None) -> bool:
    if weight is None or weight.device.type != "cpu" or weight.dtype not in _TYPES or not weight.numel():
        return False
    return weight.dtype is torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _product(weight: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """`torch.nn.Linear.forward`, from a packed weight."""
    if x.requires_grad and torch.is_grad_enabled():
        raise UsageError(
            "Packed weights have no gradients.",
            hint="Train the model outside the `pack_weights` block.",
        )
    output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return output
