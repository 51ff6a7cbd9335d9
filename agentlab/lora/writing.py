"""Writing adapter folders that PEFT, vLLM and our own stacked forward load, one module at a time.

Every module gets the same rank, filled up with zeros, and alpha = rank: the factors alone are the change, no pattern
is needed, and servers that know one scale per adapter apply the right one.
"""

import contextlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch  # noqa: TID253 - reached lazily, when an adapter is written

from agentlab.errors import DataError, StorageError, UsageError
from agentlab.lora.blend import check_rank
from agentlab.lora.delta import LoraDelta
from agentlab.lora.reading import PREFIX, WEIGHTS_FILE, Adapter, each_module, union
from agentlab.lora.settings import CONFIG_FILE, AdapterSettings
from agentlab.runs.atomic import hidden_folder, make_folder, storage_errors, sync_folder, write_json

_DTYPES = {"float32": ("F32", torch.float32), "bfloat16": ("BF16", torch.bfloat16), "float16": ("F16", torch.float16)}
_SLACK = 1 << 20  # bytes beside the weights
_MAKING = ".making-adapter-"

Operator = Callable[[str, list[LoraDelta]], LoraDelta]


def derive(
    parents: Sequence[Adapter],
    out: Path,
    rank: int,
    operator: Operator,
    *,
    dtype: str = "float32",
    metadata: Mapping[str, str] | None = None,
    any_base: bool = False,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Write the child of some adapters. At no time is more in memory than one module of all of them.

    A concatenation whose parents nearly cancel loses digits when it is stored in float32; truncate it to its own rank
    first, which factors the difference anew.

    Args:
        rank: of the child; the operator's deltas have at most this one.
        operator: from a module's name and its delta in every parent (rank 0 where a parent leaves it alone) to the
            child's.
        dtype: float32, bfloat16 or float16. Children that will be parents again should be float32.
        metadata: texts for the header of the weights, such as where the child comes from.
        finish: called with the folder while it still has its temporary name, to add files that belong to the child.

    Raises:
        UsageError: the parents belong to different base models, `out` exists, or `dtype` is unknown.
        DataError: shapes differ, or a delta does not fit.
        StorageError: the disk is full or not ours.
    """
    shapes = union(parents, any_base=any_base)
    children = ((name, operator(name, deltas)) for name, deltas in each_module(parents, any_base=any_base))
    first = parents[0].settings
    alike = all(parent.settings.suffixes == first.suffixes for parent in parents)
    targets = first.suffixes if first.suffixes and alike else list(shapes)
    origin = first.model_copy(update={"target_modules": targets})
    write_adapter(out, shapes, children, rank, origin, dtype=dtype, metadata=metadata, finish=finish)


def write_adapter(
    out: Path,
    shapes: Mapping[str, tuple[int, int]],
    modules: Iterable[tuple[str, LoraDelta]],
    rank: int,
    origin: AdapterSettings,
    *,
    dtype: str = "float32",
    metadata: Mapping[str, str] | None = None,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Write an adapter folder, whole or not at all.

    Args:
        out: the folder to make; its parent is made if need be.
        shapes: (outputs, inputs) by module, in the order in which they will come.
        modules: each module's change, in the same order; consumed one by one.
        origin: base model, layout and targets of the adapter. Rank, alpha and patterns are not taken over.

    Raises:
        UsageError: `out` exists, or the type is unknown.
        DataError: a delta has another shape, a larger rank or a number that is none.
        StorageError: the disk is full or not ours.
    """
    check_rank(rank)
    if dtype not in _DTYPES:
        raise UsageError(f"Adapters cannot be stored as {dtype!r}.", hint=f"Supported: {', '.join(_DTYPES)}.")
    label, kind = _DTYPES[dtype]
    sides = {}
    for name, (outputs, inputs) in shapes.items():
        sides[f"{PREFIX}{name}.lora_A.weight"] = (label, (rank, inputs), rank * inputs * kind.itemsize)
        sides[f"{PREFIX}{name}.lora_B.weight"] = (label, (outputs, rank), outputs * rank * kind.itemsize)
    header = tensors_header(sides, metadata)
    with stage_folder(out, len(header) + sum(size for _, _, size in sides.values())) as folder:
        with (folder / WEIGHTS_FILE).open("xb") as file:
            file.write(header)
            _write_modules(file, shapes, modules, rank, kind)
            file.flush()
            os.fsync(file.fileno())
        write_json(folder / CONFIG_FILE, _config(origin, list(shapes), rank))
        if finish is not None:
            finish(folder)


def _write_modules(
    file: IO[bytes],
    shapes: Mapping[str, tuple[int, int]],
    modules: Iterable[tuple[str, LoraDelta]],
    rank: int,
    kind: torch.dtype,
) -> None:
    for (expected, shape), (name, delta) in zip(shapes.items(), modules, strict=True):
        if name != expected or delta.shape != shape or delta.rank > rank:
            raise DataError(
                f"Got {name} as {delta.shape} of rank {delta.rank}; expected {expected} as {shape}, rank <= {rank}."
            )
        for tensor in _pad_factors(delta, rank):
            stored = tensor.to("cpu", kind).contiguous()
            if not torch.isfinite(stored).all():
                raise DataError(f"{name} contains infinite or NaN values.", hint="Use smaller weights, or float32.")
            file.write(stored.view(torch.uint8).numpy().data)


def _pad_factors(delta: LoraDelta, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = delta.fold_scale()
    missing = rank - delta.rank
    return torch.nn.functional.pad(a, (0, 0, 0, missing)), torch.nn.functional.pad(b, (0, missing))


def tensors_header(
    tensors: Mapping[str, tuple[str, tuple[int, ...], int]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """The head of a safetensors file whose tensors follow in this order: type as the format names it, shape, bytes."""
    entries: dict[str, Any] = {"__metadata__": {**(metadata or {}), "format": "pt"}}
    end = 0
    for name, (label, shape, size) in tensors.items():
        start, end = end, end + size
        entries[name] = {"dtype": label, "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(entries, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # data is aligned to 8 bytes
    return struct.pack("<Q", len(text)) + text


def _config(origin: AdapterSettings, modules: list[str], rank: int) -> dict[str, Any]:
    targets = origin.target_modules
    return {
        "peft_type": "LORA",
        "task_type": origin.task_type or "CAUSAL_LM",
        "base_model_name_or_path": origin.base_model_name_or_path,
        "revision": origin.revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "fan_in_fan_out": origin.fan_in_fan_out,
        "init_lora_weights": True,
        "target_modules": targets if isinstance(targets, list) else modules,
        "rank_pattern": {},
        "alpha_pattern": {},
    }


@contextlib.contextmanager
def room_for(out: Path, size: int) -> Iterator[None]:
    """Look for space before `out` is written; what the disk complains of, now or later, comes with a remedy.

    `out`: the file or folder to make; its parent is made if need be.

    Raises:
        StorageError: too little space, or the disk is read-only or not ours.
    """
    needed = size + _SLACK
    try:
        with storage_errors(out):
            make_folder(out.parent)
            free = shutil.disk_usage(out.parent).free
            if free < needed:
                raise StorageError(
                    f"{out.parent} has only {_mebibytes(free)} free, but {out.name} needs {_mebibytes(needed)}."
                )
            yield
    except StorageError as error:
        hint = f"Free some space ({out.name} needs {_mebibytes(needed)}), or choose another place with --out."
        raise StorageError(error.message, hint=hint) from error


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


@contextlib.contextmanager
def stage_folder(out: Path, size: int) -> Iterator[Path]:
    """A hidden folder beside `out` that takes its name if all goes well and is removed if not; see `room_for`."""
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} already exists.", hint="Choose another name with --out, or delete the folder.")
    with room_for(out, size):
        with hidden_folder(out.parent, _MAKING) as folder:
            yield folder
            sync_folder(folder)
            folder.rename(out)
        sync_folder(out.parent)
