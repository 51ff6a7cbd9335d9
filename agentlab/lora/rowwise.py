"""Each row of a batch under its own adapter: stacked where that can be, else through PEFT's `adapter_names`."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch  # noqa: TID253 - reached lazily, when adapters are applied to a model

from agentlab.errors import UsageError
from agentlab.lora.reading import Adapter, union
from agentlab.lora.stacked import BASE, Factors, Stack, check_rows, layer_of, linear_layer

_ALONE = "__base__"  # PEFT's name for no adapter


class Rowwise(Protocol):
    """Adapters of a model, applied together. `slow` says why that takes long; None if it does not."""

    slow: str | None

    def rows(self, rows: Sequence[int]) -> None: ...

    def put(self, folder: Path) -> int:
        """Add an adapter: its place. Nothing changes on an error, which is one of those of `rowwise`."""

    def drop(self, slot: int) -> None:
        """Let go of an adapter; its place may become another's."""


@contextmanager
def rowwise(
    model: Any, folders: Sequence[Path], dtype: torch.dtype | None = None, *, any_base: bool = False
) -> Iterator[Rowwise]:
    """Adapters for the rows of batches, inside the `with` block; afterwards the model is as it was.

    Until `rows` names others, every row is the base's. The adapters are stacked if every layer that they change is
    linear. Otherwise (GPT-2's layers are convolutions) PEFT applies them, one after the other in each layer: the same
    outputs, later. Without adapters to begin with, it is the model that decides.

    Args:
        model: the base model itself, not wrapped by PEFT, on one device.
        folders: adapters in PEFT format, made for this model; rows name them by their place here.
        dtype: of the adapters' factors; None for the model's own.

    Raises:
        MissingFileError, DataError, ModelFileError: as `Adapter`.
        UsageError: the adapters belong to different base models, or not to this one.
    """
    with ExitStack() as opened:
        adapters = [opened.enter_context(Adapter(folder)) for folder in folders]
        if adapters:
            names = union(adapters, any_base=any_base)
            linear = all(isinstance(layer_of(model, name), torch.nn.Linear) for name in names)
        else:
            from transformers.pytorch_utils import Conv1D

            linear = not any(isinstance(module, Conv1D) for module in model.modules())
    with ExitStack() as hooks:
        row_adapters: AdapterStack | _PeftAdapters
        if linear:
            row_adapters = AdapterStack(model.device, dtype or model.dtype, any_base)
            row_adapters.size = len(folders)  # so that room is made once
            hooks.enter_context(row_adapters.install_hooks(model))
        else:
            row_adapters = _PeftAdapters(model, hooks, any_base)
        for folder in folders:
            row_adapters.put(folder)
        yield row_adapters


class AdapterStack(Stack):
    """Adapters for inference, which can come and go. Ranks, scales and targets may differ.

    Scales go into B; where an adapter has a smaller rank, or leaves a layer alone, the rest is zero. `device` is that
    of the base model, `dtype` that of the stacked factors.
    """

    slow: str | None = None

    def __init__(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, any_base: bool = False
    ) -> None:
        super().__init__({}, 0)
        self._any_base = any_base
        self._kind: dict[str, Any] = {"device": device, "dtype": dtype}
        self._held: dict[int, Adapter] = {}
        self._factors: dict[str, Factors] = {}  # A (adapters, rank, inputs) and B (adapters, rank, outputs) of a layer

    def put(self, folder: Path) -> int:
        slot = min(set(range(self.size + 1)) - set(self._held))
        with Adapter(folder) as adapter:
            if self._model is not None:
                for name, module in adapter.modules.items():
                    linear_layer(self._model, name, module.inputs, module.outputs)
            union([*self._held.values(), adapter], any_base=self._any_base)
            folded = {name: adapter.delta(name).fold_scale() for name in adapter.modules}
        self.size = max(self.size, slot + 1)
        for name in [*self._factors, *(name for name in folded if name not in self._factors)]:
            new_a, new_b = folded.get(name, (None, None))
            shape = None if new_a is None or new_b is None else (len(new_a), new_a.shape[1], len(new_b))
            a, b = self._room(name, shape)
            a[slot], b[slot] = 0, 0
            if new_a is not None and new_b is not None:
                a[slot, : len(new_a)], b[slot, : len(new_a)] = new_a, new_b.mT
        self._held[slot] = adapter
        self._forget()
        return slot

    def drop(self, slot: int) -> None:
        self._held.pop(slot, None)
        self._forget()

    def _check(self, rows: Sequence[int]) -> None:
        check_rows(rows, self._held)

    def _room(self, name: str, shape: tuple[int, int, int] | None) -> Factors:
        """A layer's factors, with room for all places and for a change of this rank, inputs and outputs."""
        factors = self._factors.get(name)
        rank, inputs, outputs = shape or (0, 0, 0)
        if factors is None:
            self._modules[name] = partial(self._part, name)
            factors = torch.zeros(0, rank, inputs, **self._kind), torch.zeros(0, rank, outputs, **self._kind)
            self._hook(name, inputs, outputs)
        a, b = factors
        missing = (max(0, self.size - len(a)), max(0, rank - a.shape[1]))
        if any(missing):
            a = torch.nn.functional.pad(a, (0, 0, 0, missing[1], 0, missing[0]))
            b = torch.nn.functional.pad(b, (0, 0, 0, missing[1], 0, missing[0]))
        self._factors[name] = a, b
        return a, b

    def _part(self, name: str, first: int, count: int) -> Factors:
        a, b = self._factors[name]
        return a[first : first + count].mT, b[first : first + count]


class _PeftAdapters:
    """Adapters that PEFT puts into the model, called by their places."""

    slow: str | None = (
        "The adapters change layers that are not linear; PEFT applies them one after the other, which is slower."
    )

    def __init__(self, model: Any, hooks: ExitStack, any_base: bool) -> None:
        self._model, self._hooks, self._any_base = model, hooks, any_base
        self._wrapped: Any = None  # PEFT does not work without any adapter
        self._held: dict[int, tuple[str, Adapter]] = {}
        self._rows: list[str] | None = None
        self._hooked: set[int] = set()
        self._count = 0

    def rows(self, rows: Sequence[int]) -> None:
        check_rows(rows, self._held)
        self._rows = [_ALONE if row == BASE else self._held[row][0] for row in rows]

    def put(self, folder: Path) -> int:
        slot, name = min(set(range(len(self._held) + 1)) - set(self._held)), str(self._count)
        self._count += 1
        with Adapter(folder) as adapter:
            union([*(loaded for _, loaded in self._held.values()), adapter], any_base=self._any_base)
        try:
            self._load(str(folder), name)
        except (RuntimeError, ValueError) as error:
            raise UsageError(
                f"{folder} does not fit the model: {str(error)[:300]}",
                hint="Apply adapters to the base model they were trained on.",
            ) from error
        self._held[slot] = name, adapter
        for stale in set(self._wrapped.peft_config) - {loaded_name for loaded_name, _ in self._held.values()}:
            self._wrapped.delete_adapter(stale)
        self._wrapped.eval()
        self._hook()
        return slot

    def drop(self, slot: int) -> None:
        self._held.pop(slot, None)  # from PEFT it goes when the next one has come
        self._rows = None

    def _load(self, folder: str, name: str) -> None:
        from peft import LoraConfig, PeftModel

        if self._wrapped is None:
            self._wrapped = PeftModel(self._model, LoraConfig.from_pretrained(folder), adapter_name="empty")
            self._hooks.callback(self._wrapped.unload)
        self._wrapped.load_adapter(folder, adapter_name=name)

    def _hook(self) -> None:
        from peft.tuners.lora import LoraLayer

        for module in self._wrapped.modules():
            if isinstance(module, LoraLayer) and id(module) not in self._hooked:
                self._hooked.add(id(module))
                layer: torch.nn.Module = module  # type: ignore[assignment] # PEFT mixes it into modules
                self._hooks.enter_context(layer.register_forward_pre_hook(self._add_adapter_names, with_kwargs=True))

    def _add_adapter_names(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "adapter_names": self._rows or [_ALONE] * len(args[0])}
