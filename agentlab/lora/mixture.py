"""Any number of weighted sums of a few adapters in one forward pass, exact, and none of them written down.

The parents' factors lie side by side once per layer. A row's weights stand between the two products,
`base(x) + ((x A) * w) B`, so a batch costs as much as one adapter of the summed rank, whatever its rows blend.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - reached lazily, when adapters are applied to a model

from agentlab.errors import UsageError
from agentlab.lora.reading import Adapter, each_module
from agentlab.lora.stacked import BASE, Factors, Stack, Weighted

Weights = Mapping[str, Sequence[float]]  # by module, one per parent; a module that is left out is left alone


class Mixture(Stack):
    """Weighted sums of parents, as a `Rowwise`: places are the children of `mix`. Errors: as `reading.each_module`.

    `device` is that of the base model, `dtype` that of the factors.
    """

    slow: str | None = None

    def __init__(
        self,
        parents: Sequence[Adapter],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        any_base: bool = False,
    ) -> None:
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        factors: dict[str, Factors] = {}
        self._owners: dict[str, torch.Tensor] = {}  # of a layer's directions: to which parent each belongs
        for name, deltas in each_module(parents, any_base=any_base):
            sides = [delta.fold_scale() for delta in deltas]
            a, b = torch.cat([side[0] for side in sides]), torch.cat([side[1] for side in sides], dim=1)
            factors[name] = a.to(**kind).T.contiguous()[None], b.to(**kind).T.contiguous()[None]
            ranks = torch.tensor([delta.rank for delta in deltas])
            self._owners[name] = torch.arange(len(deltas)).repeat_interleave(ranks).to(device)
        super().__init__({name: partial(self._of, name) for name in factors}, 0)
        self._factors, self._kind, self._parents = factors, kind, len(parents)
        self._table: dict[str, torch.Tensor] = {}

    def mix(self, children: Sequence[Weights]) -> None:
        """The children that rows may name, in place of those before. No tensor is blended.

        Raises:
            UsageError: a child has weights for a module that no parent changes.
        """
        unknown = set(chain.from_iterable(children)) - set(self._factors)
        if unknown:
            raise UsageError(f"No parent changes {min(unknown)}.")
        self._forget()
        self.size = len(children)
        for name, owners in self._owners.items():
            alone = [0.0] * self._parents
            table = torch.tensor([*(list(child.get(name, alone)) for child in children), alone], **self._kind)
            self._table[name] = table[:, owners]

    def rows(self, rows: Sequence[int]) -> None:
        if list(rows) == self._rows:
            return
        self._check(rows)
        self._forget()
        self._rows, self._idle = list(rows), False
        self._places = torch.tensor([self.size if row == BASE else row for row in rows], device=self._kind["device"])

    def _of(self, name: str, _: int, __: int) -> Factors:
        return self._factors[name]

    def _plan_layer(self, name: str, *, alone: bool) -> Weighted:  # noqa: ARG002 - of `Stack`
        a, b = self._factors[name]
        return Weighted(a[0], b[0], self._table[name][self._places, None])

    def put(self, folder: Path) -> int:
        raise UsageError(
            f"{folder} is not among the parents of this mixture.", hint="Open a new mixture that includes it."
        )

    def drop(self, slot: int) -> None:
        """Nothing: `mix` names all children anew."""
