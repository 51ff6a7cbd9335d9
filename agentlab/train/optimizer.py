"""AdamW over named weights, and its state by their names, so that a checkpoint knows what belongs to what."""

from collections.abc import Mapping

import torch  # noqa: TID253 - this module is only imported by code that trains
from torch import Tensor, nn  # noqa: TID253 - as above

from agentlab.train.config import TrainingConfig


def adamw(weights: Mapping[str, nn.Parameter], training: TrainingConfig, device: str) -> torch.optim.AdamW:
    """Decoupled weight decay (arXiv 1711.05101), in one kernel for all weights where the device has it."""
    return torch.optim.AdamW(
        weights.values(), lr=training.lr, weight_decay=training.weight_decay, fused=device != "mps"
    )


def state_of(optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """`NAME.STATE` to a tensor on the CPU, as in `...lora_A.weight.exp_avg`."""
    names = list(weights)
    return {
        f"{names[index]}.{kind}": value.detach().cpu()
        for index, values in optimizer.state_dict()["state"].items()  # which are in any order
        for kind, value in values.items()
    }


def restore(optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]) -> None:
    """The inverse of `state_of`; the tensors are copied.

    Raises:
        ValueError: a state is of no weight here, or of another shape; the kernels would write past the weight's end.
    """
    indices = {name: index for index, name in enumerate(weights)}
    found: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        name, _, kind = key.rpartition(".")
        if name not in weights or (value.ndim and value.shape != weights[name].shape):
            raise ValueError(f"the optimiser's state {key} does not fit")
        found.setdefault(indices[name], {})[kind] = value.clone()
    optimizer.load_state_dict({"state": found, "param_groups": optimizer.state_dict()["param_groups"]})
