"""Several adapters in one forward pass: a batched matrix product per linear layer instead of a loop over adapters.

Rows of a batch that use the same adapter lie side by side. Neighbouring adapters with equally many rows are one product
of stacked factors, `base(x) + (x A) B` (the layout of multi-adapter serving, arXiv 2311.03285); groups of unequal size
are one product each, which measured faster than padding them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch  # noqa: TID253 - reached lazily, when adapters are applied to a model

from agentlab.errors import UsageError
from agentlab.lora.reading import Adapter, each_module

BASE = -1  # the adapter of rows that the base model answers alone

Factors = tuple[torch.Tensor, torch.Tensor]
Source = Callable[[int, int], Factors]


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows `start` to `stop` of a batch, in equal shares of `count` neighbouring adapters from `first` on."""

    first: int
    count: int
    start: int
    stop: int


def segments(rows: Sequence[int]) -> tuple[Segment, ...]:
    """The fewest products that a batch takes.

    Args:
        rows: the adapter of each row, or BASE.
    """
    found: list[Segment] = []
    start = 0
    for adapter, members in groupby(rows):
        size = sum(1 for _ in members)
        last = found[-1] if found else None
        follows = last is not None and BASE not in (adapter, last.first) and adapter == last.first + last.count
        if last is not None and follows and size * last.count == last.stop - last.start:
            found[-1] = Segment(last.first, last.count + 1, last.start, start + size)
        else:
            found.append(Segment(adapter, 1, start, start + size))
        start += size
    return tuple(found)


def check_rows(rows: Sequence[int], size: int) -> None:
    """See that every row names one of `size` adapters, or BASE.

    Raises:
        UsageError: one does not, or there is no row.
    """
    wrong = [row for row in rows if not BASE <= row < size]
    if wrong or not rows:
        raise UsageError(
            f"Row for adapter {wrong[0]} of {size}." if wrong else "A batch needs a row.",
            hint="Adapters count from 0; BASE is the base model alone.",
        )


class _Share:
    """A segment of the batch and its factors in one layer."""

    __slots__ = ("_count", "_factors", "_rows")

    def __init__(self, rows: Segment, batch: int, source: Source) -> None:
        whole = rows.stop - rows.start == batch
        self._rows = None if whole else slice(rows.start, rows.stop)  # views take a while, 210 times a token
        self._count = rows.count
        self._factors = None if rows.first == BASE else source(rows.first, rows.count)

    def changed(self, x: torch.Tensor, base: torch.Tensor, scale: float) -> torch.Tensor:
        """The layer's output for these rows, from all rows' inputs and base outputs."""
        if self._rows is not None:
            x, base = x[self._rows], base[self._rows]
        if self._factors is None:
            return base
        a, b = self._factors
        stacked = base.reshape(self._count, -1, base.shape[-1])
        hidden = torch.bmm(x.reshape(self._count, -1, x.shape[-1]).to(a.dtype), a)
        if stacked.dtype == hidden.dtype == b.dtype:
            return torch.baddbmm(stacked, hidden, b, alpha=scale).view(base.shape)
        change = torch.bmm(hidden, b)  # in the adapters' type, or autocast's; the sum is rounded once
        return torch.add(stacked, change, alpha=scale).to(base.dtype).view(base.shape)


class Stack:
    """Adapters of one base model, ready to be applied together.

    Args:
        modules: for each linear layer that one of them changes, a function from the first adapter and how many to their
            factors: A (adapters, inputs, rank) and B (adapters, rank, outputs), an adapter that leaves the layer
            alone being zero. It is asked whenever the stack is applied, so that trained factors are the current ones.
        size: how many adapters there are.
        scale: of every product.
        dropout: share of an adapter's input that is dropped while the layer is in training mode.
    """

    def __init__(self, modules: Mapping[str, Source], size: int, *, scale: float = 1.0, dropout: float = 0.0) -> None:
        self.size = size
        self._modules = modules
        self._scale = scale
        self._dropout = dropout

    @classmethod
    def of(
        cls,
        adapters: Sequence[Adapter],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        any_base: bool = False,
    ) -> "Stack":
        """Stack adapters for inference. Ranks, scales and targets may differ: scales go into B, the rest is zero.

        Args:
            adapters: open adapters; they can be closed afterwards.
            device: of the base model.
            dtype: of the stacked factors.
            any_base: see `reading.union`.

        Raises:
            UsageError: there is none, or they belong to different base models.
            DataError: a layer has different shapes in two of them.
        """
        modules: dict[str, Source] = {}
        for name, deltas in each_module(adapters, any_base=any_base):
            outputs, inputs = deltas[0].shape
            rank = max(delta.rank for delta in deltas)
            a, b = torch.zeros(len(deltas), rank, inputs), torch.zeros(len(deltas), outputs, rank)
            for index, delta in enumerate(deltas):
                left, right = delta.folded()
                a[index, : delta.rank], b[index, :, : delta.rank] = left, right
            modules[name] = partial(_part, a.to(device, dtype).mT, b.to(device, dtype).mT)
        return cls(modules, len(adapters))

    @contextmanager
    def applied(self, model: Any, rows: Sequence[int]) -> Iterator[None]:
        """The model with these adapters, inside the `with` block; afterwards it is as it was, whatever happened.

        Rows of different adapters must not share a cache of keys and values: these depend on the adapter. `generate`
        works as long as it keeps one row per answer, in this order.

        Args:
            model: the base model itself, not wrapped by PEFT. Linear layers may be quantised by bitsandbytes.
            rows: the adapter of each row, in the order of the stack, or BASE. Any order is right; sorted with equally
                many rows each is fastest.

        Raises:
            UsageError: a row names no adapter, the model has not the layers that the adapters change, or, in the
                block, the batch has another number of rows.
        """
        check_rows(rows, self.size)
        plan = segments(rows)
        with ExitStack() as hooks:
            for name, source in self._modules.items():
                layer = _layer(model, name, source)
                shares = [_Share(each, len(rows), source) for each in plan]
                hooks.enter_context(layer.register_forward_hook(partial(self._add, len(rows), shares)))
            yield

    def _add(
        self, rows: int, shares: Sequence[_Share], module: Any, given: tuple[torch.Tensor, ...], base: torch.Tensor
    ) -> torch.Tensor:
        """What the layer returns: for all its rows, the base model's output and the adapters' change."""
        x = given[0]
        if len(x) != rows:
            raise UsageError(
                f"A batch of {len(x)} rows came, and adapters were given for {rows}.",
                hint="Name one adapter per row; beam search and several answers per row repeat the rows.",
            )
        if self._dropout and module.training:
            x = torch.nn.functional.dropout(x, self._dropout)
        parts = [share.changed(x, base, self._scale) for share in shares]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _part(a: torch.Tensor, b: torch.Tensor, first: int, count: int) -> Factors:
    return a[first : first + count], b[first : first + count]


def layer_of(model: Any, name: str) -> Any:
    """The layer of that name, of whatever kind.

    Raises:
        UsageError: there is none.
    """
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise UsageError(
            f"The model has no layer {name}, which an adapter changes.",
            hint="Apply adapters to the base model that they were trained on, unwrapped by PEFT.",
        ) from None


def _layer(model: Any, name: str, source: Source) -> torch.nn.Linear:
    """The linear layer of that name.

    Raises:
        UsageError: there is none, it is of another kind, or its shape is not that of the factors.
    """
    module = layer_of(model, name)
    if not isinstance(module, torch.nn.Linear):
        raise UsageError(
            f"{name} is a {type(module).__name__}, not a linear layer: adapters of it cannot be stacked.",
            hint="Use agentlab.lora.rowwise, which applies them through PEFT.",
        )
    a, b = source(0, 1)
    if (module.in_features, module.out_features) != (a.shape[-2], b.shape[-1]):
        raise UsageError(
            f"{name} maps {module.in_features} numbers to {module.out_features}; the adapters' maps {a.shape[-2]} to "
            f"{b.shape[-1]}.",
            hint="Apply adapters to the base model that they were trained on.",
        )
    return module
