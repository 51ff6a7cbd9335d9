"""A training between two steps: all that decides how it goes on, as one safetensors file that vouches for itself.

There is no generator in it: every step seeds its own from the run's seed and its number.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch  # noqa: TID253 - this module is only imported by code that trains
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn, uint8  # noqa: TID253 - as above

from agentlab.config.base import StrictModel
from agentlab.errors import RunMismatchError
from agentlab.runs.atomic import is_temporary, make_folder, write_bytes
from agentlab.train.config import TrainingConfig

# One metadata entry, because safetensors writes several in random order. The number is the layout's version.
_KEY = "agentlab.train.checkpoint.1"
_NAME = re.compile(r"step-\d{8}\.safetensors", re.ASCII)
_PARTS = ("adapter", "best", "optimizer")  # of a `TrainingCheckpoint`, in its order
_KEPT = 2  # the older one stands in when a disk damages the newer

Weights = dict[str, Tensor]


class Progress(StrictModel):
    """What is no tensor. Losses are natural logarithms per learnt token, with the number of done steps."""

    origin: str  # SHA-256 of what the training started from
    step: int = Field(0, ge=0)
    losses: tuple[tuple[int, float], ...] = ()
    eval_losses: tuple[tuple[int, float], ...] = ()
    best_step: int = Field(0, ge=0)  # 0 before the first scoring
    tokens: int = Field(0, ge=0)  # seen in `seconds`, a measurement
    seconds: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> "Progress":
        if [step for step, _ in self.losses] != list(range(1, self.step + 1)):
            raise ValueError("the steps are not numbered in order")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class TrainingCheckpoint:
    """All tensors are on the CPU. The optimiser's settings are not here: the configuration decides them."""

    progress: Progress
    adapter: Weights  # by the names of the trained weights
    best: Weights  # empty where `adapter` is the best, and before the first scoring
    optimizer: Weights  # by `NAME.STATE`, as in `...lora_A.weight.exp_avg`


class _Signed(StrictModel):
    progress: Progress
    sha256: str


def save_checkpoint(folder: Path, checkpoint: TrainingCheckpoint) -> None:
    """Write it below `folder`, and remove all but the newest two.

    Raises:
        StorageError: the disk is full, read-only or not ours.
    """
    make_folder(folder)
    tensors: dict[str, Tensor] = {}
    for part in _PARTS:
        tensors |= {f"{part}.{name}": value.contiguous() for name, value in getattr(checkpoint, part).items()}
    signed = _Signed(progress=checkpoint.progress, sha256=_digest(checkpoint.progress, tensors))
    data = save(tensors, metadata={_KEY: signed.model_dump_json()})
    write_bytes(folder / f"step-{checkpoint.progress.step:08d}.safetensors", data)
    for path in folder.iterdir():
        if is_temporary(path):
            path.unlink()
    for path in _list_checkpoints(folder)[_KEPT:]:
        path.unlink()


def last_checkpoint(folder: Path, origin: str) -> TrainingCheckpoint | None:
    """The newest whole checkpoint below `folder`; files that are cut off or damaged count as absent.

    Raises:
        RunMismatchError: it is of another training.
    """
    for path in _list_checkpoints(folder):
        checkpoint = _read(path)
        if checkpoint is None:
            continue
        if checkpoint.progress.origin != origin:
            raise RunMismatchError(
                f"{path} belongs to a training run with different data, settings, base model or seed.",
                hint=f"Choose another folder, or delete {folder}; training will then start over.",
            )
        return checkpoint
    return None


def _list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints, the newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def _read(path: Path) -> TrainingCheckpoint | None:
    try:
        with safe_open(path, framework="pt") as file:
            signed = _Signed.model_validate_json((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValidationError, KeyError):
        return None
    if signed.sha256 != _digest(signed.progress, tensors):
        return None
    return TrainingCheckpoint(signed.progress, *(_below(f"{part}.", tensors) for part in _PARTS))


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> Weights:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _digest(progress: Progress, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(progress.model_dump_json().encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(uint8).numpy().data)
    return digest.hexdigest()


def adamw(weights: Mapping[str, nn.Parameter], training: TrainingConfig, device: str) -> torch.optim.AdamW:
    """Decoupled weight decay (arXiv 1711.05101), in one kernel for all weights where the device has it."""
    return torch.optim.AdamW(
        weights.values(), lr=training.lr, weight_decay=training.weight_decay, fused=device != "mps"
    )


def state_of(optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """`NAME.STATE` to a tensor on the CPU, as in `...lora_A.weight.exp_avg`."""
    names = list(weights)
    state: dict[str, Tensor] = {}
    for index, values in optimizer.state_dict()["state"].items():  # which are in any order
        state |= {f"{names[index]}.{kind}": value.detach().cpu() for kind, value in values.items()}
    return state


def restore(optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]) -> None:
    """The inverse of `state_of`; the tensors are copied.

    Raises:
        ValueError: a state is of no weight here, or of another shape; the kernels would write past the weight's end.
    """
    indices = {name: index for index, name in enumerate(weights)}
    state_by_index: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        name, _, kind = key.rpartition(".")
        if name not in weights or (value.ndim and value.shape != weights[name].shape):
            raise ValueError(f"optimiser state {key} does not match")
        state_by_index.setdefault(indices[name], {})[kind] = value.clone()
    optimizer.load_state_dict({"state": state_by_index, "param_groups": optimizer.state_dict()["param_groups"]})
