"""Keys and values of rows that are answered side by side."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch  # noqa: TID253 - reached lazily, where a model answers
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache  # noqa: TID253 - as above
from transformers.cache_utils import Cache, DynamicLayer  # noqa: TID253 - as above
from transformers.integrations.sdpa_attention import sdpa_attention_forward  # noqa: TID253 - as above
from transformers.masking_utils import sdpa_mask  # noqa: TID253 - as above

from agentlab.hf.prefill import Past, read, slides, takes
from agentlab.lora.rowwise import Rowwise

_NAME = "row_by_row"
_WORTH = 64  # columns of padding a row that take longer to be read than a row by itself
HEADROOM = 128  # columns: a table that is full is copied once in as many steps


class Apart:
    """As `Table`, for models whose rows need caches of their own: a step is a step of each row."""

    def __init__(self) -> None:
        self._pasts: list[Past] = []

    def fit(self, past: Past, rows: int, width: int) -> None:
        """See `Table.fit`: nothing to do."""

    def enter(self, past: Past, row: int, length: int) -> None:  # noqa: ARG002 - of `Table`
        """See `Table.enter`; each past is of one row."""
        self._pasts.append(past)

    def swap(self, one: int, other: int) -> None:
        """See `Table.swap`."""
        self._pasts[one], self._pasts[other] = self._pasts[other], self._pasts[one]

    def move(self, row: int, to: int) -> None:
        """See `Table.move`."""
        self._pasts[to] = self._pasts[row]

    def pop(self) -> None:
        """See `Table.pop`."""
        self._pasts.pop()

    def step(self, model: Any, adapters: Rowwise, rows: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        """See `Table.step`."""
        found = []
        for place, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            logits, self._pasts[place] = read(model, adapters, [row], [[token]], self._pasts[place], multiple=1)
            found.append(logits)
        return torch.cat(found)


class Table:
    """The cache of the rows that live: all end in the same column, so that a step writes one column for all of them.

    Rows are copied from place to place; all of them only where there is no column left, and then the columns in use.
    The columns that no row uses are not computed with.
    """

    def __init__(self) -> None:
        self._lengths: list[int] = []  # tokens of each row
        self._layers: list[_Layer] = []

    def fit(self, past: Past, rows: int, width: int) -> None:
        """Make room for so many rows, one of which will have so many tokens; `past` is like theirs."""
        self._layers = self._layers or [_Layer(self._lengths, each) for each in past.cache.layers]
        for layer in self._layers:
            layer.fit(rows, max([*self._lengths, width]))

    def enter(self, past: Past, row: int, length: int) -> None:
        """Add a row of a past, which has so many tokens."""
        self._write(len(self._lengths), past, row, length)

    def swap(self, one: int, other: int) -> None:
        """Let two rows change places."""
        past, length = self.past(one), self._lengths[one]
        self.move(other, one)
        self._write(other, past, 0, length)

    def move(self, row: int, to: int) -> None:
        """Copy a row over another one."""
        for layer in self._layers:
            layer.write(to, *layer.row(row, self._lengths[row]))
        self._lengths[to] = self._lengths[row]

    def _write(self, to: int, past: Past, row: int, length: int) -> None:
        columns = past.columns(row)
        for layer, source in zip(self._layers, past.cache.layers, strict=True):
            layer.write(to, source.keys[row, :, columns], source.values[row, :, columns])
        self._lengths[to : to + 1] = [length]

    def pop(self) -> None:
        """Let go of the last row."""
        self._lengths.pop()
        if not self._lengths:
            self._layers = []

    def past(self, row: int) -> Past:
        """What was read of a row, as a copy without padding."""
        length = self._lengths[row]
        parts = [tuple(side[None].clone() for side in layer.row(row, length)) for layer in self._layers]
        return Past(DynamicCache(parts), torch.ones(1, length, dtype=torch.bool, device=parts[0][0].device))

    def step(self, model: Any, adapters: Rowwise, rows: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        """Read a token of each row, under its adapter: logits of shape (rows, vocabulary) behind it."""
        width = max(self._lengths)
        for layer in self._layers:
            layer.fit(len(rows), width, more=1)
        adapters.rows(rows)
        lengths = torch.tensor(self._lengths, device=model.device)[:, None]
        with _row_by_row(model, [length + 1 for length in self._lengths]) as keys:
            out = model(
                input_ids=torch.tensor(tokens, device=model.device)[:, None],
                attention_mask=torch.arange(width + 1, device=model.device) >= width - lengths,
                position_ids=lengths,
                past_key_values=Cache(layers=list(self._layers)),
                use_cache=True,
                logits_to_keep=1,
                **keys,
            )
        for layer in self._layers:
            layer.end += 1
        self._lengths[:] = [length + 1 for length in self._lengths]
        logits: torch.Tensor = out.logits[:, -1]
        return logits


@contextmanager
def _row_by_row(model: Any, lengths: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Let attention read so many columns of each row alone, where that pays: what the model is to be called with.

    On a CPU, attention to one token takes as long as its columns take to be read.
    """
    config = model.config
    padding = max(lengths) * len(lengths) - sum(lengths)
    plain = config._attn_implementation == "sdpa" and not slides(model) and takes(model.__class__, "kwargs")
    if model.device.type != "cpu" or not plain or padding < _WORTH * len(lengths):
        yield {}
        return
    config._attn_implementation = _NAME
    try:
        yield {"row_lengths": lengths}
    finally:
        config._attn_implementation = "sdpa"


def _attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, **keys: Any
) -> tuple[torch.Tensor, None]:
    """As `sdpa_attention_forward`, of one token of each row; by rows, if their lengths have come this far."""
    lengths = keys.pop("row_lengths", None)
    if lengths is None:
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **keys)
        return found
    rows, heads, _, size = query.shape
    by_key = query.view(rows, key.shape[1], -1, size)  # heads that share their keys, as if they were tokens
    parts = [
        torch.nn.functional.scaled_dot_product_attention(
            by_key[row : row + 1],
            key[row : row + 1, :, -length:],
            value[row : row + 1, :, -length:],
            scale=keys["scaling"],
        )
        for row, length in enumerate(lengths)
    ]
    return torch.cat(parts).view(rows, 1, heads, -1), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)


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

    def fit(self, rows: int, width: int, more: int = 0) -> None:
        """Make room for so many rows with so many columns before their end, and `more` behind it."""
        there, _, columns, _ = self._held[0].shape
        if rows <= there and width <= self.end and self.end + more <= columns:
            return
        # zeros: whatever the memory held, times a weight of nought, might be no number
        new = [side.new_zeros(rows, side.shape[1], width + HEADROOM, side.shape[3]) for side in self._held]
        for side, old in zip(new, self._held, strict=True):
            side[: len(old), :, width - self.get_seq_length() : width] = old[:rows, :, self._used()]
        self._held, self.end = new, width

    def write(self, row: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Copy keys and values (heads, columns, size) into a row's last columns, and wipe those before: see `fit`."""
        start = self.end - keys.shape[1]
        for side, given in zip(self._held, (keys, values), strict=True):
            side[row, :, :start] = 0
            side[row, :, start : self.end] = given

    def row(self, row: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the last columns of a row, of shape (heads, columns, size)."""
        keys, values = (side[row, :, self.end - length : self.end] for side in self._held)
        return keys, values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one column, of keys and values (rows, heads, 1, size); all that the rows have by now."""
        rows, used = len(self._lengths), self._used(1)
        for side, new in zip(self._held, (key_states, value_states), strict=True):
            side[:rows, :, self.end : self.end + 1] = new
        return self._held[0][:rows, :, used], self._held[1][:rows, :, used]

    def _used(self, more: int = 0) -> slice:
        return slice(self.end - self.get_seq_length(), self.end + more)

    def get_seq_length(self) -> int:
        """Columns that were used before this step."""
        return max(self._lengths, default=0)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that the mask covers, and which is the first."""
        return self.get_seq_length() + query_length, 0
