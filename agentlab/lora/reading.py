"""Reading adapter folders in PEFT format, one module at a time from a memory-mapped file."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - reached lazily, when an adapter is opened
from safetensors import SafetensorError, safe_open

from agentlab.errors import DataError, MissingFileError, ModelFileError, UsageError
from agentlab.lora.delta import LoraDelta, zero
from agentlab.lora.settings import DAMAGED, MOST_RANK, AdapterSettings, read_settings

WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."  # what PEFT puts before the names of the base model's modules
_MOST_BYTES = 64 << 30
_MOST_TENSORS = 65_536
_MOST_SIDE = 1 << 22  # rows or columns of a weight matrix; vocabularies have some 10^5
_MOST_CHANGE = 100.0  # of a weight, on average; trained adapters change less than 1
_MOST_FACTOR = 1e8  # of a number in a factor; trained ones are below 100
_TENSOR = re.compile(re.escape(PREFIX) + r"(?P<module>\w+(?:\.\w+)*)\.lora_(?P<side>[AB])\.weight", re.ASCII)
_DTYPES = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True, slots=True)
class Module:
    """A module that an adapter changes: the shape of the change (outputs, inputs), its rank and its scale.

    Layers that store their weights transposed (fan_in_fan_out) add the transposed change.
    """

    outputs: int
    inputs: int
    rank: int
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.outputs, self.inputs


class Adapter:
    """An open adapter folder. Its modules are known at once; their factors are read one by one.

    Use it as a context manager, or call `close`.

    Raises:
        MissingFileError: the folder or one of its files is not there.
        DataError: the adapter is more than a low-rank matrix per module, or its files contradict each other.
        ModelFileError: the weights are damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings: AdapterSettings = read_settings(path)
        self._file: Any = _open(path / WEIGHTS_FILE)
        try:
            self.modules: Mapping[str, Module] = _describe(path, self._file, self.settings)
        except BaseException:
            self.close()
            raise

    def delta(self, module: str) -> LoraDelta:
        """The change of a module, in the type it is stored in, on the CPU.

        Raises:
            KeyError: the adapter does not change this module.
            ModelFileError: a number is infinite or none, too large for float32, or the change beyond all weights.
        """
        layer = self.modules[module]
        a, b = (self._file.get_tensor(f"{PREFIX}{module}.lora_{side}.weight") for side in "AB")
        hint = "The training diverged; train the adapter again with a lower learning rate."
        if not all(torch.isfinite(factor.float()).all() for factor in (a, b)):  # larger ones overflow when multiplied
            raise ModelFileError(f"{self.path}: the factors of {module} contain infinite or NaN values.", hint=hint)
        largest = max(float(factor.abs().max()) for factor in (a, b))
        if largest > _MOST_FACTOR:  # small in the product or not: beside others in a batch it would overflow for all
            raise ModelFileError(f"{self.path}: the factors of {module} have values up to {largest:.2g}.", hint=hint)
        norms = float(torch.linalg.vector_norm(a.double()) * torch.linalg.vector_norm(b.double()))
        change = abs(layer.scale) * norms / math.sqrt(layer.outputs * layer.inputs)  # root mean square, at most
        if not change <= _MOST_CHANGE:
            raise ModelFileError(
                f"{self.path}: its factors change each weight of {module} by up to {change:.2g}, but weights "
                "of language models are at most around 1.",
                hint=hint,
            )
        return LoraDelta(a, b, layer.scale)

    def close(self) -> None:
        """Let go of the file. Tensors that were read stay valid."""
        self._file = None

    def __enter__(self) -> "Adapter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def union(parents: Sequence[Adapter], *, any_base: bool = False) -> dict[str, tuple[int, int]]:
    """Shape (outputs, inputs) of every module that one of the open parents changes, in their order.

    With `any_base`, they may belong to different base models, if their matrices have the same shapes.

    Raises:
        UsageError: there is no parent, or they belong to different base models.
        DataError: a module has different shapes or layouts in two of them.
    """
    if not parents:
        raise UsageError("There are no adapters to combine.")
    first = parents[0]
    shapes: dict[str, tuple[int, int]] = {}
    for parent in parents:
        if parent.settings.base != first.settings.base and not any_base:
            raise UsageError(
                f"{first.path} belongs to {_base(first)}, but {parent.path} to {_base(parent)}.",
                hint="Combine adapters of the same base model and revision, or pass --any-base if the models are "
                "the same.",
            )
        if parent.settings.fan_in_fan_out != first.settings.fan_in_fan_out:
            raise DataError(
                f"{first.path} and {parent.path} differ in fan_in_fan_out, so they belong to different base models."
            )
        for name, module in parent.modules.items():
            if shapes.setdefault(name, module.shape) != module.shape:
                raise DataError(
                    f"{name} is {module.shape} in {parent.path}, but {shapes[name]} in another adapter.",
                    hint="They were trained on different base models; combine adapters of the same base model.",
                )
    return shapes


def each_module(parents: Sequence[Adapter], *, any_base: bool = False) -> Iterator[tuple[str, list[LoraDelta]]]:
    """Name and change in every parent of one module after another; a change of rank 0 where a parent leaves it alone.

    The order, the arguments and the errors are those of `union`; nothing is kept of a module when the next one comes.
    """
    for name, shape in union(parents, any_base=any_base).items():
        yield name, [parent.delta(name) if name in parent.modules else zero(shape) for parent in parents]


def total_rank(parents: Sequence[Adapter]) -> int:
    """The rank an exact sum of the parents needs: the largest over the modules."""
    return max(_rank_sum(parents, name) for name in union(parents, any_base=True))


def _rank_sum(parents: Sequence[Adapter], name: str) -> int:
    return sum(parent.modules[name].rank for parent in parents if name in parent.modules)


def _base(adapter: Adapter) -> str:
    name, revision = adapter.settings.base
    return f"{name or 'an unnamed base model'}{f' at {revision}' if revision else ''}"


def _open(path: Path) -> Any:
    if not path.is_file():
        pickled = path.with_suffix(".bin").is_file()
        raise MissingFileError(
            f"{path.parent} has no {path.name}{', only a pickled adapter_model.bin' if pickled else ''}.",
            hint="Unpickling can run arbitrary code. If you trust the file, load it with PEFT and save it "
            "again as safetensors."
            if pickled
            else "Use a folder written by PEFT or `agentlab train-persona`.",
        )
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"{path} is larger than {_MOST_BYTES >> 30} GiB, too large for an adapter.")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is damaged: {str(error)[:200]}.", hint=DAMAGED) from error


def _describe(path: Path, file: Any, settings: AdapterSettings) -> dict[str, Module]:
    names = list(file.keys())
    if len(names) > _MOST_TENSORS:
        raise DataError(f"{path} has {len(names)} tensors, too many for an adapter.")
    sides: dict[str, dict[str, tuple[int, int]]] = {}
    for name in names:
        module, side = _parse(path, name)
        sides.setdefault(module, {})[side] = _matrix(path, name, file.get_slice(name))
    if not sides:
        raise DataError(f"{path} contains no tensors.", hint="Train the adapter again.")
    ordered = sorted(sides, key=_natural)
    ranks, alphas = settings.ranks(ordered), settings.alphas(ordered)
    modules = {}
    for name in ordered:
        if len(sides[name]) != 2:
            raise DataError(f"{path}: {name} has only one factor.", hint=DAMAGED)
        (rank, inputs), (outputs, inner) = sides[name]["A"], sides[name]["B"]
        if rank != inner or rank != ranks[name]:
            raise DataError(
                f"{path}: {name} has factors of rank {rank} and {inner}, but its config says {ranks[name]}.",
                hint="The config and the weights do not belong to the same adapter.",
            )
        _check_target(path, name, settings)
        modules[name] = Module(outputs, inputs, rank, settings.scale(rank, alphas[name]))
    return modules


def _parse(path: Path, name: str) -> tuple[str, str]:
    match = _TENSOR.fullmatch(name) if len(name) <= 512 else None
    if match is None:
        kind = "trains embeddings" if "lora_embedding" in name else f"contains the tensor {name[:120]!r}"
        raise DataError(
            f"{path} {kind}, which is not part of a plain LoRA adapter for linear layers.",
            hint="Train it with linear layers as target_modules and save it with PEFT.",
        )
    return match["module"], match["side"]


def _matrix(path: Path, name: str, tensor: Any) -> tuple[int, int]:
    shape, kind = tensor.get_shape(), tensor.get_dtype()
    if len(shape) != 2 or kind not in _DTYPES:
        raise DataError(
            f"{path}: {name} is of type {kind} and shape {list(shape)[:6]}, not a float matrix.",
            hint="Only LoRA adapters for linear layers can be combined.",
        )
    if not 1 <= min(shape) <= MOST_RANK or max(shape) > _MOST_SIDE:
        raise DataError(f"{path}: {name} has an invalid shape for an adapter: {list(shape)}.")
    return shape[0], shape[1]


def _check_target(path: Path, name: str, settings: AdapterSettings) -> None:
    """PEFT ignores weights of modules that the config does not name: there the adapter would be another one."""
    targets = settings.target_modules
    if isinstance(targets, list) and not any(name == target or name.endswith(f".{target}") for target in targets):
        raise DataError(
            f"{path} contains weights for {name}, which is not in its target_modules.",
            hint="The config and the weights do not belong to the same adapter.",
        )


def _natural(name: str) -> list[tuple[int, str]]:
    """Layer 2 before layer 10."""
    return [(int(part), "") if part.isdecimal() and len(part) < 10 else (-1, part) for part in name.split(".")]
