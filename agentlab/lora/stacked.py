"""Several adapters in one forward pass: a batched matrix product per linear layer instead of a loop over adapters.

Rows of a batch that use the same adapter lie side by side. Neighbouring adapters with equally many rows are one product
of stacked factors, `base(x) + (x A) B` (the layout of multi-adapter serving, arXiv 2311.03285); groups of unequal size
are one product each, which measured faster than padding them. Where each row is one token and ranks are small, all rows
are one product with all factors, each with a weight of 0 for those that are not its own.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch  # noqa: TID253 - reached lazily, when adapters are applied to a model

from agentlab.errors import UsageError

BASE = -1  # the adapter of rows that the base model answers alone

Factors = tuple[torch.Tensor, torch.Tensor]
Source = Callable[[int, int], Factors]

_NARROW = 64  # ranks in all, and rows: so few, a product of all takes less than one for each adapter


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows `start` to `stop` of a batch, in equal shares of `count` neighbouring adapters from `first` on."""

    first: int
    count: int
    start: int
    stop: int


def segments(rows: Sequence[int]) -> tuple[Segment, ...]:
    """The fewest products that a batch takes. `rows`: the adapter of each row, or BASE."""
    grouped: list[Segment] = []
    start = 0
    for adapter, members in groupby(rows):
        size = sum(1 for _ in members)
        last = grouped[-1] if grouped else None
        follows = last is not None and BASE not in (adapter, last.first) and adapter == last.first + last.count
        if last is not None and follows and size * last.count == last.stop - last.start:
            grouped[-1] = Segment(last.first, last.count + 1, last.start, start + size)
        else:
            grouped.append(Segment(adapter, 1, start, start + size))
        start += size
    return tuple(grouped)


def check_rows(rows: Sequence[int], slots: Collection[int]) -> None:
    """See that every row names the place of an adapter, or BASE.

    Raises:
        UsageError: one does not, or there is no row.
    """
    wrong = [row for row in rows if row != BASE and row not in slots]
    if wrong or not rows:
        raise UsageError(
            f"A row refers to adapter {wrong[0]}, but there are {len(slots)}."
            if wrong
            else "A batch needs at least one row.",
            hint="Adapters are numbered from 0; BASE is the base model alone.",
        )


class _Share:
    """A segment of the batch and its factors in one layer."""

    __slots__ = ("_count", "_factors", "_rows")

    def __init__(self, rows: Segment, batch: int, source: Source) -> None:
        covers_batch = rows.stop - rows.start == batch
        self._rows = None if covers_batch else slice(rows.start, rows.stop)  # views take a while, 210 times a token
        self._count = rows.count
        self._factors = None if rows.first == BASE else source(rows.first, rows.count)

    def add_change(self, x: torch.Tensor, base: torch.Tensor, scale: float, *, in_place: bool) -> torch.Tensor:
        """The layer's output for these rows, from all rows' inputs and base outputs, or written over the latter."""
        if self._rows is not None:
            x, base = x[self._rows], base[self._rows]
        if self._factors is None:
            return base
        a, b = self._factors
        stacked = base.reshape(self._count, -1, base.shape[-1])
        hidden = torch.bmm(x.reshape(self._count, -1, x.shape[-1]).to(a.dtype), a)
        if stacked.dtype == hidden.dtype == b.dtype:
            add = stacked.baddbmm_ if in_place else stacked.baddbmm
            return add(hidden, b, alpha=scale).view(base.shape)
        change = torch.bmm(hidden, b)  # in the adapters' type, or autocast's; the sum is rounded once
        if in_place:
            return stacked.add_(change, alpha=scale).view(base.shape)
        return torch.add(stacked, change, alpha=scale).to(base.dtype).view(base.shape)


class Stack:
    """Adapters of one base model, ready to be applied together.

    Args:
        modules: for each linear layer that one of them changes, a function from the first adapter and how many to their
            factors: A (adapters, inputs, rank) and B (adapters, rank, outputs), an adapter that leaves the layer
            alone being zero. It is asked by every new plan of rows, so that trained factors are the current ones.
        size: how many adapters there are.
        scale: of every product.
        dropout: share of an adapter's input that is dropped while the layer is in training mode.
    """

    def __init__(self, modules: Mapping[str, Source], size: int, *, scale: float = 1.0, dropout: float = 0.0) -> None:
        self.size = size
        self._modules = dict(modules)
        self._scale = scale
        self._dropout = dropout
        self._hooks: ExitStack | None = None
        self._model: Any = None
        self._rows: list[int]
        self._idle: bool  # every row is the base's
        self._plan: Sequence[Segment]
        self._order: torch.Tensor | None  # of the rows by adapter, where they come in another one
        self._back: torch.Tensor | None
        self._shares: dict[tuple[str, bool], list[_Share] | Weighted]  # of the layers that the plan was used in
        self._weights: dict[int, torch.Tensor]  # of the rows, by rank of an adapter
        self._forget()

    @contextmanager
    def install_hooks(self, model: Any) -> Iterator[None]:
        """The model with a hook in each layer inside the `with` block, idle before `rows` is called.

        Entering takes milliseconds, a new plan of rows less. Afterwards the model is as it was, whatever happened.
        `model`: the base model itself, not wrapped by PEFT. Linear layers may be quantised by bitsandbytes.

        Raises:
            UsageError: the model has not the layers that the adapters change.
        """
        self._forget()
        with ExitStack() as hooks:
            self._hooks, self._model = hooks, model
            try:
                for name, source in self._modules.items():
                    a, b = source(0, 1)
                    self._hook(name, a.shape[-2], b.shape[-1])
                yield
            finally:
                self._hooks = self._model = None

    def rows(self, rows: Sequence[int]) -> None:
        """Say which adapter each row of the next batches has, until it is said anew.

        Rows of different adapters must not share a cache of keys and values: these depend on the adapter. `rows`: the
        adapter of each row, in the order of the stack, or BASE. Any order is right; sorted with equally many rows each
        is fastest.

        Raises:
            UsageError: a row names no adapter; or later, the batch has another number of rows.
        """
        if rows == self._rows:
            return
        self._check(rows)
        self._forget()
        ordered = sorted(rows)
        self._plan = segments(rows)
        if len(self._plan) > 1 and rows != ordered:  # moving the rows of a step takes less than a product for each
            self._plan = segments(ordered)
            self._order = torch.tensor(sorted(range(len(rows)), key=rows.__getitem__), device=self._model.device)
            self._back = self._order.argsort()
        self._rows = list(rows)
        self._idle = ordered[-1] == BASE

    @contextmanager
    def apply_to(self, model: Any, rows: Sequence[int]) -> Iterator[None]:
        """`install_hooks` for one plan of `rows`; `generate` works while it keeps one row per answer, in this order."""
        self._check(rows)
        with self.install_hooks(model):
            self.rows(list(rows))
            yield

    def _check(self, rows: Sequence[int]) -> None:
        check_rows(rows, range(self.size))

    def _forget(self) -> None:
        """The plan; every row is the base's."""
        self._rows, self._plan, self._order, self._back = [], (), None, None
        self._shares, self._weights, self._idle = {}, {}, True

    def _hook(self, name: str, inputs: int, outputs: int) -> None:
        if self._hooks is not None:
            layer = linear_layer(self._model, name, inputs, outputs)
            self._hooks.enter_context(layer.register_forward_hook(partial(self._add, name)))

    def _add(self, name: str, module: Any, inputs: tuple[torch.Tensor, ...], base: torch.Tensor) -> torch.Tensor:
        if self._idle:
            return base
        x = inputs[0]
        if len(x) != len(self._rows):
            raise UsageError(
                f"The batch has {len(x)} rows, but adapters were given for {len(self._rows)}.",
                hint="Give one adapter per row; beam search and several answers per prompt multiply the rows.",
            )
        if self._dropout and module.training:
            x = torch.nn.functional.dropout(x, self._dropout)
        in_place = not torch.is_grad_enabled() and base.is_contiguous()  # the layer has just made it, for us alone
        alone = x.numel() == len(x) * x.shape[-1]
        shares = self._shares.get((name, alone))
        if shares is None:
            shares = self._shares[name, alone] = self._plan_layer(name, alone=alone)
        if isinstance(shares, Weighted):
            return shares.add_change(x, base, in_place=in_place)
        if self._order is not None:
            x, base = x[self._order], base[self._order]
        parts = [share.add_change(x, base, self._scale, in_place=in_place) for share in shares]
        output = base if in_place else parts[0] if len(parts) == 1 else torch.cat(parts)
        return output if self._back is None else output[self._back]

    def _plan_layer(self, name: str, *, alone: bool) -> "list[_Share] | Weighted":
        """What is to be computed in a layer; `alone` says that each row is one token."""
        rows, source = self._rows, self._modules[name]
        if alone and (len(self._plan) > 1 or self._order is not None) and len(rows) <= _NARROW:
            first, last = min(row for row in rows if row != BASE), max(rows)
            a, b = source(first, last - first + 1)
            rank = a.shape[-1]
            if len(a) * rank <= _NARROW and a.dtype == b.dtype:
                if rank not in self._weights:
                    owners = torch.arange(first, last + 1).repeat_interleave(rank)
                    self._weights[rank] = (torch.tensor(rows)[:, None, None] == owners).to(a) * self._scale
                return Weighted(a.mT.reshape(-1, a.shape[1]).mT, b.reshape(-1, b.shape[-1]), self._weights[rank])
        return [_Share(segment, len(rows), source) for segment in self._plan]


class Weighted:
    """What a layer adds to the rows of a batch, each with weights of its own between the two products.

    Shapes: a (inputs, ranks) and b (ranks, outputs) for all adapters, weights (rows, 1, ranks).
    """

    def __init__(self, a: torch.Tensor, b: torch.Tensor, weights: torch.Tensor) -> None:
        self._a, self._b, self._weights = a, b, weights

    def add_change(self, x: torch.Tensor, base: torch.Tensor, *, in_place: bool) -> torch.Tensor:
        """The layer's output, from its inputs and base outputs, or written over the latter."""
        weights = self._weights if x.dim() == 3 else self._weights.view(len(x), *[1] * (x.dim() - 2), -1)
        hidden = (x.to(self._a.dtype) @ self._a).mul_(weights)
        if in_place and hidden.dtype == base.dtype:
            flat = base.view(-1, base.shape[-1])
            return flat.addmm_(hidden.view(-1, hidden.shape[-1]), self._b).view(base.shape)
        change = hidden @ self._b
        return base.add_(change) if in_place else torch.add(base, change).to(base.dtype)


def layer_of(model: Any, name: str) -> Any:
    """The layer of that name, of whatever kind.

    Raises:
        UsageError: there is none.
    """
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise UsageError(
            f"An adapter changes {name}, a layer the model does not have.",
            hint="Apply adapters to the base model they were trained on, without a PEFT wrapper.",
        ) from None


def linear_layer(model: Any, name: str, inputs: int, outputs: int) -> torch.nn.Linear:
    """The linear layer of that name.

    Raises:
        UsageError: there is none, it is of another kind, or its shape is not that of the factors.
    """
    module = layer_of(model, name)
    if not isinstance(module, torch.nn.Linear):
        raise UsageError(
            f"{name} is a {type(module).__name__}, not a linear layer, so its adapters cannot be stacked.",
            hint="Use agentlab.lora.rowwise, which applies them through PEFT.",
        )
    if (module.in_features, module.out_features) != (inputs, outputs):
        raise UsageError(
            f"{name} maps {module.in_features} to {module.out_features} features, but the adapters map "
            f"{inputs} to {outputs}.",
            hint="Apply adapters to the base model they were trained on.",
        )
    return module
