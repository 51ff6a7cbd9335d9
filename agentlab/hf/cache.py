"""Keys and values of texts that are read and answered side by side."""

import inspect
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch  # noqa: TID253 - reached lazily, where a model answers
from transformers import DynamicCache  # noqa: TID253 - as above
from transformers.cache_utils import Cache, DynamicLayer, get_layer_types_and_kwargs  # noqa: TID253 - as above

from agentlab.lora.rowwise import Rowwise

_HEADROOM = 128  # columns: a table that is full is copied once in as many steps


@dataclass(frozen=True, slots=True)
class Past:
    """What was read of some texts, padded on the left.

    Attributes:
        cache: keys and values, of shape (rows, heads, columns, size) in each layer.
        seen: bool of shape (rows, columns); the others are padding.
    """

    cache: Any
    seen: torch.Tensor

    @classmethod
    def empty(cls, model: Any) -> "Past":
        """Of one text, in the kind of cache that the model makes for itself."""
        return cls(DynamicCache(config=model.config), torch.ones(1, 0, dtype=torch.bool, device=model.device))

    def select(self, rows: Sequence[int]) -> "Past":
        """The past of these rows, which may be named more than once, as a copy."""
        index = torch.tensor(rows, device=self.seen.device)
        parts = [(layer.keys[index], layer.values[index]) for layer in self.cache.layers]
        return Past(DynamicCache(parts), self.seen[index])


def padded(model: Any, texts: Sequence[Sequence[int]], past: Past | None = None) -> dict[str, Any]:
    """The arguments of a model that reads texts side by side: padded on the left, behind a past if there is one."""
    longest = max(map(len, texts))
    seen = torch.arange(longest) >= torch.tensor([[longest - len(each)] for each in texts])
    ids = torch.tensor([[0] * (longest - len(each)) + list(each) for each in texts])
    seen = seen.to(model.device) if past is None else torch.cat([past.seen, seen.to(model.device)], dim=1)
    found = {"input_ids": ids.to(model.device), "attention_mask": seen}
    if _takes_positions(model.__class__):
        found["position_ids"] = (seen.long().cumsum(1) - 1).clamp(min=0)[:, -longest:]
    return {**found, "past_key_values": DynamicCache() if past is None else past.cache}


def read(
    model: Any, adapters: Rowwise, rows: Sequence[int], texts: Sequence[Sequence[int]], past: Past | None = None
) -> tuple[torch.Tensor, Past]:
    """Read texts side by side, behind a past, which is used up.

    Args:
        model: causal.
        adapters: of the model.
        rows: the adapter of each text.
        texts: tokens, at least one each.
        past: what was read before, one row for each text.

    Returns:
        Logits behind each text, of shape (texts, vocabulary), and what was read by now.
    """
    adapters.rows(rows)
    batch = padded(model, texts, past)
    out = model(**batch, use_cache=True, logits_to_keep=1)
    return out.logits[:, -1], Past(batch["past_key_values"], batch["attention_mask"])


def unmergeable(model: Any) -> str | None:
    """Why rows of this model cannot be answered side by side; None if they can."""
    others = _kinds(model) - {"full_attention", "sliding_attention"}
    if others:
        return f"{type(model).__name__} has layers of {', '.join(sorted(others))}: its rows are computed one by one."
    if not _takes_positions(model.__class__):
        return f"{type(model).__name__} takes no positions: its rows are computed one by one."
    return None


def slides(model: Any) -> bool:
    """Whether a layer sees the nearest columns alone: then none between two tokens of a row may be empty."""
    return "full_attention" not in _kinds(model) or len(_kinds(model)) > 1


def _kinds(model: Any) -> set[str]:
    return set(get_layer_types_and_kwargs(model.config.get_text_config(decoder=True))[0])


@cache
def _takes_positions(model: Hashable) -> bool:
    return "position_ids" in inspect.signature(model.forward).parameters  # type: ignore[attr-defined] # a class of transformers


class Apart:
    """As `Table`, for models whose rows need caches of their own: a step is a step of each row."""

    def __init__(self) -> None:
        self._pasts: list[Past] = []

    def enter(self, entries: Sequence[tuple[Past, int, int]]) -> None:
        """See `Table.enter`; each past is of one row."""
        self._pasts += [past for past, _, _ in entries]

    def leave(self, row: int) -> None:
        """See `Table.leave`."""
        self._pasts[row] = self._pasts[-1]
        self._pasts.pop()

    def step(self, model: Any, adapters: Rowwise, rows: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        """See `Table.step`."""
        found = []
        for place, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            logits, self._pasts[place] = read(model, adapters, [row], [[token]], self._pasts[place])
            found.append(logits)
        return torch.cat(found)


class Table:
    """The cache of the rows that live: all end in the same column, so that a step writes one column for all of them.

    A row that leaves is replaced by the last one; one that enters is written behind it. Nothing else is moved until
    there is no column left; then those in use are copied. The columns that no row uses are not computed with.
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []  # tokens of each row
        self.end = 0
        self._layers: list[_Layer] = []

    def enter(self, entries: Sequence[tuple[Past, int, int]]) -> None:
        """Add rows: of each a past, its row there, and its number of tokens."""
        lengths = [length for _, _, length in entries]
        if not self._layers:
            self._layers, self.end = [_Layer(self, each) for each in entries[0][0].cache.layers], 0
        self._fit(len(self.lengths) + len(entries), max([*self.lengths, *lengths]))
        for place, (past, row, length) in enumerate(entries, len(self.lengths)):
            columns: Any = past.seen[row].nonzero().squeeze(1)
            if int(columns[-1]) - int(columns[0]) < length:
                columns = slice(int(columns[0]), int(columns[-1]) + 1)  # nothing between: no copy before the copy
            for layer, source in zip(self._layers, past.cache.layers, strict=True):
                layer.write(place, slice(self.end - length, self.end), source, row, columns)
        self.lengths += lengths

    def leave(self, row: int) -> None:
        """Remove a row; the last one gets its place."""
        length = self.lengths.pop()
        if row < len(self.lengths):
            for layer in self._layers:
                layer.move(len(self.lengths), row, slice(self.end - length, self.end))
            self.lengths[row] = length
        if not self.lengths:
            self._layers = []

    def step(self, model: Any, adapters: Rowwise, rows: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        """Read a token of each row, under its adapter: logits of shape (rows, vocabulary) behind it."""
        width = max(self.lengths)
        self._fit(len(rows), width, more=1)
        adapters.rows(rows)
        lengths = torch.tensor(self.lengths, device=model.device)[:, None]
        out = model(
            input_ids=torch.tensor(tokens, device=model.device)[:, None],
            attention_mask=torch.arange(width + 1, device=model.device) >= width - lengths,
            position_ids=lengths,
            past_key_values=Cache(layers=list(self._layers)),
            use_cache=True,
            logits_to_keep=1,
        )
        self.end += 1
        self.lengths = [length + 1 for length in self.lengths]
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def _fit(self, rows: int, width: int, more: int = 0) -> None:
        """Make room for so many rows with so many columns before their end, and `more` behind it."""
        there, columns = self._layers[0].room
        if rows <= there and width <= self.end and self.end + more <= columns:
            return
        used = slice(self.end - max(self.lengths, default=0), self.end)
        for layer in self._layers:
            layer.resize(max(rows, there), width + _HEADROOM, used, width)
        self.end = width


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call] # transformers checks its subclasses
    """One layer of a table; to the model, a cache of the columns that are used."""

    def __init__(self, table: Table, like: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # as above
        self.is_initialized = True
        self._table = table
        self._held = [side.new_zeros(0, side.shape[1], 0, side.shape[3]) for side in (like.keys, like.values)]

    @property
    def room(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self._held[0]), self._held[0].shape[2]

    def write(self, row: int, place: slice, source: Any, of: int, columns: Any) -> None:
        """Copy some columns of a row of a model's own cache into this row."""
        for side, given in zip(self._held, (source.keys, source.values), strict=True):
            side[row, :, place] = given[of][:, columns]

    def move(self, row: int, to: int, columns: slice) -> None:
        """Copy a row over another one."""
        for side in self._held:
            side[to, :, columns] = side[row, :, columns]

    def resize(self, rows: int, columns: int, used: slice, end: int) -> None:
        """Change the room; the columns that were used end at `end` from now on."""
        width = used.stop - used.start
        for place, side in enumerate(self._held):
            # zeros: whatever the memory held, times a weight of nought, might be no number
            new = side.new_zeros(rows, side.shape[1], columns, side.shape[3])
            new[: len(side), :, end - width : end] = side[:, :, used]
            self._held[place] = new

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one column, of keys and values (rows, heads, 1, size); all that the rows have by now."""
        end, rows = self._table.end, len(self._table.lengths)
        for side, new in zip(self._held, (key_states, value_states), strict=True):
            side[:rows, :, end : end + 1] = new
        used = slice(end - self.get_seq_length(), end + 1)
        return self._held[0][:rows, :, used], self._held[1][:rows, :, used]

    def get_seq_length(self) -> int:
        """Columns that were used before this step."""
        return max(self._table.lengths)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that the mask covers, and which is the first."""
        return self.get_seq_length() + query_length, 0
