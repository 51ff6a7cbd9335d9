"""A trial between two epochs: all that decides how its training goes on, as one safetensors blob."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor  # noqa: TID253 - this module is only imported by code that trains

from agentlab.config.base import StrictModel
from agentlab.errors import RunUnreadableError
from agentlab.nas.config import TrialConfig
from agentlab.nas.series import Series

# One metadata entry, because safetensors writes several in random order. The number is the layout's version.
_KEY = "agentlab.nas.checkpoint.1"
_OPTIMIZER = re.compile(r"optimizer\.(\d{1,6})\.(\w+)", re.ASCII)

_UNSIGNED = "0" * 64  # stands where the SHA-256 of the blob goes, while that is computed

Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Epoch:
    """One point of a learning curve."""

    epoch: int
    lr: float
    train_loss: float
    val_mse: float
    val_mae: float


@dataclass(frozen=True, slots=True, eq=False)
class TrialCheckpoint:
    """All tensors are copies on the CPU. The optimiser's settings are not here: the configuration decides them."""

    origin: str  # SHA-256 of what the training started from
    history: tuple[Epoch, ...]
    best_epoch: int
    best: Weights  # of the best epoch so far
    model: Weights  # of the last epoch, BatchNorm's running statistics included
    optimizer: dict[int, Weights]  # the state of each parameter by its number
    generator: Tensor  # state of torch's global generator, uint8
    device_generator: Tensor | None  # the same of CUDA's
    seconds: float  # spent so far, a measurement

    @property
    def epochs(self) -> int:
        return len(self.history)

    def matches(self, trial: TrialConfig, series: Series, seed: int) -> bool:
        return self.origin == origin(trial, series, seed)


def origin(trial: TrialConfig, series: Series, seed: int) -> str:
    """SHA-256 of everything that decides a training's result besides the device, in hexadecimal."""
    parts = (trial.model_dump_json(), series.fingerprint, str(seed))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class _State(StrictModel):
    """What is no tensor. `sha256` is that of the whole blob, with zeros in its own place."""

    sha256: str = Field(_UNSIGNED, pattern="^[0-9a-f]{64}$")
    origin: str
    history: tuple[Epoch, ...]
    best_epoch: int
    seconds: float

    @model_validator(mode="after")
    def _in_order(self) -> "_State":
        if [epoch.epoch for epoch in self.history] != list(range(len(self.history))):
            raise ValueError("the epochs are not numbered consecutively")
        if self.best_epoch not in range(max(1, len(self.history))):
            raise ValueError("best_epoch is not among the finished epochs")
        return self


def to_bytes(checkpoint: TrialCheckpoint) -> bytes:
    """The checkpoint as one safetensors blob; the same checkpoint gives the same bytes."""
    tensors = {f"model.{name}": value for name, value in checkpoint.model.items()}
    if checkpoint.best is not checkpoint.model:  # the last epoch is the best one more often than not
        tensors |= {f"best.{name}": value for name, value in checkpoint.best.items()}
    for index, values in checkpoint.optimizer.items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    tensors["generator.cpu"] = checkpoint.generator
    if checkpoint.device_generator is not None:
        tensors["generator.device"] = checkpoint.device_generator
    state = _State(
        origin=checkpoint.origin,
        history=checkpoint.history,
        best_epoch=checkpoint.best_epoch,
        seconds=checkpoint.seconds,
    )
    unsigned = bytes(save(tensors, metadata={_KEY: state.model_dump_json()}))
    return _exchange(unsigned, _UNSIGNED, hashlib.sha256(unsigned).hexdigest())


def from_bytes(data: bytes) -> TrialCheckpoint:
    """The inverse of `to_bytes`.

    Raises:
        RunUnreadableError: not such a blob, of another version, cut off, or damaged anywhere.
    """
    try:
        tensors = load(data)
        state = _State.model_validate_json(_metadata(data)[_KEY])
        if state.sha256 != hashlib.sha256(_exchange(data, state.sha256, _UNSIGNED)).hexdigest():
            raise ValueError("the SHA-256 does not match")
        model, best = _below("model.", tensors), _below("best.", tensors)
        return TrialCheckpoint(
            origin=state.origin,
            history=state.history,
            best_epoch=state.best_epoch,
            best=best or model,
            model=model,
            optimizer=_optimizer(tensors),
            generator=tensors["generator.cpu"],
            device_generator=tensors.get("generator.device"),
            seconds=state.seconds,
        )
    except (SafetensorError, ValidationError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunUnreadableError(
            f"Cannot read a trial checkpoint: {reason}.", hint="Delete it; the trial will start over."
        ) from error


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of a blob that safetensors has accepted, which is what bounds the header."""
    size = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + size]).get("__metadata__") or {})


def _exchange(blob: bytes, old: str, new: str) -> bytes:
    """The blob with another SHA-256 in it: its first such string, since the metadata come first and it leads them."""
    return blob.replace(old.encode(), new.encode(), 1)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> Weights:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _optimizer(tensors: Mapping[str, Tensor]) -> dict[int, Weights]:
    states: dict[int, Weights] = {}
    for name, value in sorted(tensors.items()):
        if match := _OPTIMIZER.fullmatch(name):
            states.setdefault(int(match[1]), {})[match[2]] = value
    return states
