"""A checkpoint's safetensors files, copied with an adapter's change added: in memory is one tensor at a time."""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch  # noqa: TID253 - reached lazily, when an adapter is merged
from safetensors import SafetensorError, safe_open

from agentlab.errors import DataError, MissingFileError, ModelFileError
from agentlab.lora.delta import LoraDelta
from agentlab.lora.reading import Adapter
from agentlab.lora.writing import tensors_header
from agentlab.runs.atomic import read_text, write_json

INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_MOST_INDEX = 64 << 20
_FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_LABELS = {kind: label for label, kind in _FLOATS.items()}

Tell = Callable[[int, int, str], None]  # steps done, steps in all, the one at hand


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of a checkpoint: the file it lies in, its type as the format names it, its shape."""

    file: str
    label: str
    shape: tuple[int, ...]

    def bytes(self, dtype: torch.dtype | None) -> int:
        return math.prod(self.shape) * (dtype or _FLOATS[self.label]).itemsize


@dataclass(frozen=True, slots=True)
class ShardedCheckpoint:
    """The tensors of a folder by name, in the order of its files."""

    folder: Path
    tensors: Mapping[str, Stored]

    @property
    def dtype(self) -> torch.dtype:
        labels = [stored.label for stored in self.tensors.values()]
        return _FLOATS[max(_FLOATS, key=labels.count)]

    @property
    def weights(self) -> int:
        return sum(math.prod(stored.shape) for stored in self.tensors.values())

    def bytes(self, dtype: torch.dtype | None) -> int:
        return sum(stored.bytes(dtype) for stored in self.tensors.values())


def open_checkpoint(folder: Path) -> ShardedCheckpoint:
    """Read the headers of a checkpoint's weights.

    Raises:
        MissingFileError: a file is not there.
        DataError: there are tensors that are no 16- or 32-bit floats, as in quantised checkpoints.
        ModelFileError: a file is damaged.
    """
    tensors: dict[str, Stored] = {}
    for name in _files(folder):
        with _open_safetensors(folder / name) as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                part = file.get_slice(key)
                tensors[key] = Stored(name, part.get_dtype(), tuple(part.get_shape()))
                if tensors[key].label not in _FLOATS:
                    raise DataError(
                        f"{folder / name}: {key} is of type {tensors[key].label}; the checkpoint is quantised.",
                        hint="Merge into the 16- or 32-bit checkpoint it was made from.",
                    )
    return ShardedCheckpoint(folder, tensors)


def check_fit(checkpoint: ShardedCheckpoint, adapter: Adapter, *, tied: bool) -> None:
    """Whether every module of an adapter has its matrix in a checkpoint, of its shape.

    `checkpoint`: to merge into; `tied`: whether the model's head is its embedding table, and no matrix of its own.

    Raises:
        DataError: one has not.
    """
    hint = f"{adapter.path} belongs to another base model; pass the right one with --base."
    for name, module in adapter.modules.items():
        stored = checkpoint.tensors.get(f"{name}.weight")
        if stored is None or (tied and name == "lm_head"):
            problem = "shares its matrix with the embeddings" if tied and name == "lm_head" else "is missing"
            raise DataError(f"{checkpoint.folder}: {name}, which the adapter changes, {problem}.", hint=hint)
        expected = module.shape[::-1] if adapter.settings.fan_in_fan_out else module.shape
        if stored.shape != expected:
            raise DataError(
                f"{checkpoint.folder}: {name} has shape {stored.shape}, but the adapter's is {expected}.", hint=hint
            )


def write_merged(
    checkpoint: ShardedCheckpoint, adapter: Adapter, target: Path, dtype: torch.dtype | None, tell: Tell
) -> None:
    """Write the files of a checkpoint anew, with the adapter added in float64 and rounded once.

    `checkpoint`: that `check_fit` has passed; `target`: an empty folder.

    Raises:
        ModelFileError: a number is infinite or none, or a file is damaged.
        OSError: it cannot be written.
    """
    done = 0
    for name in dict.fromkeys(stored.file for stored in checkpoint.tensors.values()):
        mine = {key: stored for key, stored in checkpoint.tensors.items() if stored.file == name}
        with _open_safetensors(checkpoint.folder / name) as source, (target / name).open("xb") as file:
            entries = {key: (_LABELS[dtype] if dtype else s.label, s.shape, s.bytes(dtype)) for key, s in mine.items()}
            file.write(tensors_header(entries))
            for key, stored in mine.items():
                tell(done, len(checkpoint.tensors), key)
                kind = dtype or _FLOATS[stored.label]
                for block in _blocks(source, key, adapter):
                    file.write(_raw(block, kind, key))
                done += 1
            file.flush()
            os.fsync(file.fileno())
    if (checkpoint.folder / INDEX).is_file():
        weight_map = {key: stored.file for key, stored in checkpoint.tensors.items()}
        write_json(target / INDEX, {"metadata": {"total_size": checkpoint.bytes(dtype)}, "weight_map": weight_map})


def _blocks(source: Any, key: str, adapter: Adapter) -> Iterator[torch.Tensor]:
    """The new tensor, some rows at a time where something is added."""
    module = key.removesuffix(".weight")
    if module not in adapter.modules or not key.endswith(".weight"):
        yield source.get_tensor(key)
        return
    delta: LoraDelta = adapter.delta(module)
    if adapter.settings.fan_in_fan_out:
        delta = delta.transpose()
    stored, row = source.get_slice(key), 0
    for change in delta.row_blocks():
        yield stored[row : row + len(change)].double() + change
        row += len(change)


def _raw(block: torch.Tensor, kind: torch.dtype, key: str) -> Any:
    """A buffer of the numbers as they are stored."""
    written = block.to(kind).contiguous()
    if not torch.isfinite(written).all():
        raise ModelFileError(f"{key} would contain infinite or NaN values.", hint="Merge with --dtype float32.")
    return written.reshape(-1).view(torch.uint8).numpy().data


def _files(folder: Path) -> list[str]:
    index = folder / INDEX
    if not index.is_file():
        return [_SINGLE]
    try:
        weight_map = json.loads(read_text(index, _MOST_INDEX))["weight_map"]
        names = sorted(set(weight_map.values()))
        if any(PurePath(name).name != name or not name.endswith(".safetensors") for name in names):
            raise ValueError("it refers to more than .safetensors files in its folder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(
            f"{index} is damaged: {str(error)[:200]}.", hint="Download the checkpoint again."
        ) from error
    return names


def _open_safetensors(path: Path) -> Any:
    if not path.is_file():
        raise MissingFileError(
            f"{path} is missing.",
            hint="A base is a checkpoint folder with safetensors; to make one from a GGUF file: agentlab models import",
        )
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelFileError(
            f"{path} is damaged: {str(error)[:200]}.", hint="Download the checkpoint again."
        ) from error
