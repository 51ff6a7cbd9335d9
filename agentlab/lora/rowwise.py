"""Each row of a batch under its own adapter: stacked where that can be, else through PEFT's `adapter_names`."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch  # noqa: TID253 - reached lazily, when adapters are applied to a model

from agentlab.errors import UsageError
from agentlab.lora.reading import Adapter, union
from agentlab.lora.stacked import BASE, Stack, check_rows, layer_of

_ALONE = "__base__"  # PEFT's name for no adapter


class Rowwise(Protocol):
    """Adapters of a model, ready to be applied together."""

    def applied(self, model: Any, rows: Sequence[int]) -> AbstractContextManager[None]:
        """See `Stack.applied`."""
        ...


@contextmanager
def rowwise(model: Any, folders: Sequence[Path]) -> Iterator[Rowwise]:
    """Adapters for the rows of batches, inside the `with` block; afterwards the model is as it was.

    They are stacked if every layer that they change is linear. Otherwise (GPT-2's layers are convolutions) PEFT applies
    them, one after the other in each layer: the same outputs, later.

    Args:
        model: the base model itself, not wrapped by PEFT, on one device.
        folders: adapters in PEFT format, made for this model; rows name them by their place here.

    Raises:
        MissingFileError, DataError, ModelFileError: as `Adapter`.
        UsageError: the adapters belong to different base models, or not to this one.
    """
    with ExitStack() as opened:
        adapters = [opened.enter_context(Adapter(folder)) for folder in folders]
        changed = list(union(adapters)) if adapters else []
        linear = all(isinstance(layer_of(model, name), torch.nn.Linear) for name in changed)
        stack = Stack.of(adapters, device=model.device) if adapters and linear else Stack({}, 0)
    if linear:
        yield stack
        return
    with _injected(model, folders) as named:
        yield named


class _Named:
    """Adapters that PEFT has put into the model, called by their places."""

    def __init__(self, size: int) -> None:
        self._size = size

    @contextmanager
    def applied(self, model: Any, rows: Sequence[int]) -> Iterator[None]:
        from peft.tuners.lora import LoraLayer

        check_rows(rows, self._size)
        names = [_ALONE if row == BASE else str(row) for row in rows]
        with ExitStack() as hooks:
            for module in model.modules():
                if isinstance(module, LoraLayer):
                    named: torch.nn.Module = module  # type: ignore[assignment] # PEFT mixes it into modules
                    hooks.enter_context(named.register_forward_pre_hook(partial(_with_names, names), with_kwargs=True))
            yield


def _with_names(names: list[str], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, {**kwargs, "adapter_names": names}


@contextmanager
def _injected(model: Any, folders: Sequence[Path]) -> Iterator[_Named]:
    from peft import LoraConfig, PeftModel

    wrapped: Any = PeftModel(model, LoraConfig.from_pretrained(str(folders[0])), adapter_name="0")
    try:
        _fill(wrapped, folders)
        yield _Named(len(folders))
    finally:
        wrapped.unload()


def _fill(wrapped: Any, folders: Sequence[Path]) -> None:
    try:
        for index, folder in enumerate(folders):
            wrapped.load_adapter(str(folder), adapter_name=str(index))
    except RuntimeError as error:
        raise UsageError(
            f"{folder} does not fit the model: {str(error)[:300]}",
            hint="Apply adapters to the base model that they were trained on.",
        ) from error
    wrapped.eval()
