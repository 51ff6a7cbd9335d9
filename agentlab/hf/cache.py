"""Keys and values of rows that are answered side by side."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch  # noqa: TID253 - reached lazily, where a model answers
from transformers import DynamicCache  # noqa: TID253 - as above
from transformers.cache_utils import Cache, DynamicLayer  # noqa: TID253 - as above

from agentlab.hf.attention import attending, may_attend, of_rows, together
from agentlab.hf.prefill import CachedPast, read, slides
from agentlab.lora.rowwise import Rowwise

HEADROOM = 128  # columns: a table that is full is copied once in as many steps


class SeparateCaches:
    """As `CacheTable`, for models whose rows need caches of their own: a step is a step of each row."""

    def __init__(self) -> None:
        self._pasts: list[CachedPast] = []

    def enter(self, entries: Sequence[tuple[CachedPast, int, int]], rows: int) -> None:  # noqa: ARG002 - of `CacheTable`
        self._pasts += [past for past, _, _ in entries]

    def leave(self, row: int) -> None:
        self._pasts[row] = self._pasts[-1]
        self._pasts.pop()

    def step(self, model: Any, adapters: Rowwise, rows: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        row_logits = []
        for index, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            logits, self._pasts[index] = read(model, adapters, [row], [[token]], self._pasts[index], multiple=1)
            row_logits.append(logits)
        return torch.cat(row_logits)


class CacheTable:
    """The cache of the rows that live: all end in the same column, so that a step writes one column for all of them.

    A row that leaves is replaced by the last one; one that enters is written behind it. Nothing else is moved until
    there is no column left; then those in use are copied. The columns that no row uses are not computed with.
    """

    def __init__(self, model: Any) -> None:
        self._attends = may_attend(model) and not slides(model)
        self._lengths: list[int] = []  # tokens of each row
        self._layers: list[_Layer] = []
        self._shares: list[slice] = []  # of the rows, which are computed with together, if that is known

    def enter(self, entries: Sequence[tuple[CachedPast, int, int]], rows: int) -> None:
        """Add rows, or none on an error; the others stay as they are.

        `entries`: of each a past, its row there, and its number of tokens; `rows`: how many there will soon be in all.
        """
        lengths = [length for _, _, length in entries]
        self._layers = self._layers or [_Layer(self._lengths, like) for like in entries[0][0].cache.layers]
        for layer in self._layers:
            layer.fit(rows, max([*self._lengths, *lengths]))
        for index, (past, row, length) in enumerate(entries, len(self._lengths)):
            columns: Any = past.seen[row].nonzero().squeeze(1)
            if int(columns[-1]) - int(columns[0]) < length:
                columns = slice(int(columns[0]), int(columns[-1]) + 1)  # nothing between: no copy before the copy
            for layer, source in zip(self._layers, past.cache.layers, strict=True):
                layer.write(index, length, source, row, columns)
        self._lengths += lengths
        self._shares = []

    def copy_past(self, row: int) -> CachedPast:
        """What was read of a row, as a copy without padding."""
        length = self._lengths[row]
        parts = [layer.row(row, length) for layer in self._layers]
        return CachedPast(DynamicCache(parts), torch.ones(1, length, dtype=torch.bool, device=parts[0][0].device))

    def leave(self, row: int) -> None:
        for layer in self._layers:
            layer.move(len(self._lengths) - 1, row)
        self._lengths[row] = self._lengths[-1]
        self._lengths.pop()
        self._shares = []
        if not self._lengths:
            self._layers = []

    def step(self, model: Any, adapters: Rowwise, rows: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        """Read a token of each row, under its adapter: logits of shape (rows, vocabulary) behind it."""
        width = max(self._lengths)
        for layer in self._layers:
            layer.fit(len(rows), width, extra_columns=1)
        adapters.rows(rows)
        lengths = torch.tensor(self._lengths, device=model.device)[:, None]
        batch = {
            "input_ids": torch.tensor(tokens, device=model.device)[:, None],
            "position_ids": lengths,
            "past_key_values": Cache(layers=list(self._layers)),
        }
        with ExitStack() as contexts:
            if self._attends:
                self._shares = self._shares or together(self._lengths)
                new = [length + 1 for length in self._lengths]
                contexts.enter_context(attending(model, of_rows(new, self._shares, model.dtype)))
            else:
                batch["attention_mask"] = torch.arange(width + 1, device=model.device) >= width - lengths
            out = model(**batch, use_cache=True, logits_to_keep=1)
        for layer in self._layers:
            layer.end += 1
        self._lengths[:] = [length + 1 for length in self._lengths]
        logits: torch.Tensor = out.logits[:, -1]
        return logits


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call] # transformers checks its subclasses
    """One layer of a table; to the model, a cache of the columns that are used.

    It knows its own end: where memory runs out, some layers have been moved and others not, and all are right.
    """

    def __init__(self, lengths: list[int], like: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # as above
        self.is_initialized = True
        self.end = 0
        self._lengths = lengths  # the table's own
        self._held = [side.new_zeros(0, side.shape[1], 0, side.shape[3]) for side in (like.keys, like.values)]

    def fit(self, rows: int, width: int, extra_columns: int = 0) -> None:
        """Make room for so many rows with so many columns before their end, and `extra_columns` behind it."""
        capacity, _, columns, _ = self._held[0].shape
        if rows <= capacity and width <= self.end and self.end + extra_columns <= columns:
            return
        new = [side.new_empty(rows, side.shape[1], width + HEADROOM, side.shape[3]) for side in self._held]
        first, living = width - self.get_seq_length(), len(self._lengths)
        for side, old in zip(new, self._held, strict=True):
            side[:living, :, first:width] = old[:living, :, self._used_columns()]
            side[:living, :, :first] = 0  # for rows that are longer: see `write`
        self._held, self.end = new, width

    def write(self, row: int, length: int, source: Any, of: int, columns: Any) -> None:
        """Copy some columns of a row of a model's own cache into this row, and wipe those before them.

        For whatever the memory held, times a weight of nought, might be no number.
        """
        first = self.end - length
        for side, states in zip(self._held, (source.keys, source.values), strict=True):
            side[row, :, :first] = 0
            side[row, :, first : self.end] = states[of][:, columns]

    def row(self, row: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The last columns of a row, as a copy of shape (1, heads, columns, size)."""
        keys, values = (side[row : row + 1, :, self.end - length : self.end].clone() for side in self._held)
        return keys, values

    def move(self, row: int, to: int) -> None:
        for side in self._held:
            side[to, :, self._used_columns()] = side[row, :, self._used_columns()]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one column, of keys and values (rows, heads, 1, size); all that the rows have by now."""
        rows, used = len(self._lengths), self._used_columns(1)
        for side, new in zip(self._held, (key_states, value_states), strict=True):
            side[:rows, :, self.end : self.end + 1] = new
        return self._held[0][:rows, :, used], self._held[1][:rows, :, used]

    def _used_columns(self, extra_columns: int = 0) -> slice:
        return slice(self.end - self.get_seq_length(), self.end + extra_columns)

    def get_seq_length(self) -> int:
        """Columns that were used before this step."""
        return max(self._lengths, default=0)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that the mask covers, and which is the first."""
        return self.get_seq_length() + query_length, 0
