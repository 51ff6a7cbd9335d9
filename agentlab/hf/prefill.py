"""Texts that are read side by side, each under its adapter, and what remains of them: keys and values."""

import inspect
from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, groupby
from typing import Any, NamedTuple

import torch  # noqa: TID253 - reached lazily, where a model answers
from torch.nn.utils.rnn import pad_sequence  # noqa: TID253 - as above
from transformers import DynamicCache  # noqa: TID253 - as above
from transformers.cache_utils import get_layer_types_and_kwargs  # noqa: TID253 - as above

from agentlab.hf.attention import attending, may_attend, of_texts
from agentlab.lora.rowwise import Rowwise

SHARED = 16  # tokens of a common beginning that are worth being read once
_AT_ONCE = {"cpu": 1024}  # tokens of a batch: with more a CPU is no faster, and rows are padded further
_AT_ONCE_ELSEWHERE = 16_384
_PIECE = {"cpu": 128}  # tokens that are read between two steps; of a multiple of eight
_PIECE_ELSEWHERE = 2048
_MULTIPLE = 8  # columns of what is read: oneDNN keeps a kernel of 0.1 MB for every number of tokens, a thousand of them


@dataclass(frozen=True, slots=True)
class CachedPast:
    """What was read of some texts, padded on the left."""

    cache: Any  # keys and values, of shape (rows, heads, columns, size) in each layer
    seen: torch.Tensor  # bool of shape (rows, columns); False is padding

    @classmethod
    def empty(cls, model: Any) -> "CachedPast":
        """Of one text, in the kind of cache that the model makes for itself."""
        return cls(DynamicCache(config=model.config), torch.ones(1, 0, dtype=torch.bool, device=model.device))

    def select(self, rows: Sequence[int]) -> "CachedPast":
        """The past of these rows, which may be named more than once, as a copy."""
        index = torch.tensor(rows, device=self.seen.device)
        parts = [(layer.keys[index], layer.values[index]) for layer in self.cache.layers]
        return CachedPast(DynamicCache(parts), self.seen[index])

    def row(self, row: int) -> "CachedPast":
        """The past of one row without its padding, as a copy."""
        rows, columns = slice(row, row + 1), self.seen[row].nonzero().squeeze(1)
        parts = [(layer.keys[rows][:, :, columns], layer.values[rows][:, :, columns]) for layer in self.cache.layers]
        return CachedPast(DynamicCache(parts), self.seen[rows, columns])

    @classmethod
    def from_prompts(cls, prompts: Sequence["Prompt"]) -> "CachedPast":
        """What is known of each of these prompts, which is something, side by side, as a copy."""
        pasts, lengths = [prompt.past for prompt in prompts if prompt.past], [prompt.known for prompt in prompts]
        width = max(lengths)
        parts = []
        for layers in zip(*(past.cache.layers for past in pasts), strict=True):
            sides = [[layer.keys for layer in layers], [layer.values for layer in layers]]
            new = [side[0].new_zeros(len(pasts), side[0].shape[1], width, side[0].shape[3]) for side in sides]
            for to, side in zip(new, sides, strict=True):
                for index, (states, length) in enumerate(zip(side, lengths, strict=True)):
                    to[index, :, width - length :] = states[0, :, :length]
            parts.append((new[0], new[1]))
        seen = torch.arange(width) >= torch.tensor([[width - length] for length in lengths])
        return cls(DynamicCache(parts), seen.to(pasts[0].seen.device))

    @property
    def bytes(self) -> int:
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)


class Prompt(NamedTuple):
    """What is to be read.

    `past` is what its adapter has read already, of one row without padding, if anything: it begins with the first
    `known` of the tokens, and not with all of them.
    """

    adapter: int  # its place, or BASE
    tokens: Sequence[int]  # at least one
    past: CachedPast | None = None
    known: int = 0


Read = tuple[list[int], torch.Tensor, CachedPast]  # which prompts, the logits behind them, and what was read


def unmergeable(model: Any) -> str | None:
    """Why rows of this model cannot be answered side by side; None if they can."""
    name, unsupported = type(model).__name__, _kinds(model) - {"full_attention", "sliding_attention"}
    if unsupported:
        return f"{name} has layers of type {', '.join(sorted(unsupported))}, so its rows are computed one by one."
    if not _takes_positions(model.__class__):
        return f"{name} does not accept position ids, so its rows are computed one by one."
    rope_parameters = getattr(model.config.get_text_config(decoder=True), "rope_parameters", None) or {}
    ropes = {rope.get("rope_type") for rope in (rope_parameters, *rope_parameters.values()) if isinstance(rope, dict)}
    if ropes & {"dynamic", "longrope"}:
        return f"{name} scales positions by the longest row, so its rows are computed one by one."
    return None


def slides(model: Any) -> bool:
    """Whether a layer sees the nearest columns alone: then none between two tokens of a row may be empty."""
    return "full_attention" not in _kinds(model) or len(_kinds(model)) > 1


def _kinds(model: Any) -> set[str]:
    return set(get_layer_types_and_kwargs(model.config.get_text_config(decoder=True))[0])


@cache
def _takes_positions(model: Hashable) -> bool:
    return "position_ids" in inspect.signature(model.forward).parameters  # type: ignore[attr-defined] # a class of transformers


def pad_texts(
    model: Any, texts: Sequence[Sequence[int]], past: CachedPast | None = None, *, multiple: int = _MULTIPLE
) -> dict[str, Any]:
    """The arguments of a model that reads texts side by side: padded on the left, behind a past if there is one."""
    longest = -(-max(map(len, texts)) // multiple) * multiple
    seen = torch.arange(longest) >= torch.tensor([[longest - len(text)] for text in texts])
    ids = torch.tensor([[0] * (longest - len(text)) + list(text) for text in texts])
    seen = seen.to(model.device) if past is None else torch.cat([past.seen, seen.to(model.device)], dim=1)
    arguments = {"input_ids": ids.to(model.device), "attention_mask": seen}
    if _takes_positions(model.__class__):
        arguments["position_ids"] = (seen.long().cumsum(1) - 1).clamp(min=0)[:, -longest:]
    return {**arguments, "past_key_values": DynamicCache() if past is None else past.cache}


def read(
    model: Any,
    adapters: Rowwise,
    rows: Sequence[int],
    texts: Sequence[Sequence[int]],
    past: CachedPast | None = None,
    *,
    multiple: int = _MULTIPLE,
) -> tuple[torch.Tensor, CachedPast]:
    """Read texts side by side, behind a past, which is used up: logits (texts, vocabulary), and what was read by now.

    `rows`: the adapter of each text; `texts`: tokens, at least one each; `past`: what was read before, a row for each
    text; `multiple`: of the columns, 1 for models that cannot pass over padding.
    """
    if past is None and len(texts) > 1 and may_attend(model) and not slides(model) and adapters.slow is None:
        return _read_unpadded(model, adapters, rows, texts)
    adapters.rows(rows)
    batch = pad_texts(model, texts, past, multiple=multiple)
    out = model(**batch, use_cache=True, logits_to_keep=1)
    return out.logits[:, -1], CachedPast(batch["past_key_values"], batch["attention_mask"])


def _read_unpadded(
    model: Any, adapters: Rowwise, rows: Sequence[int], texts: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, CachedPast]:
    """As `read`, with one text behind the other: to the model, each token is a row, and attention knows the texts."""
    lengths, padding = [len(ids) for ids in texts], -sum(map(len, texts)) % _MULTIPLE
    lengths[-1] += padding  # behind a text, nothing in it is changed
    tokens = torch.tensor([*chain.from_iterable(texts), *[0] * padding])[:, None]
    positions = torch.cat([torch.arange(length) for length in lengths])[:, None]
    token_rows: list[int] = []
    for row, length in zip(rows, lengths, strict=True):
        token_rows += [row] * length
    adapters.rows(token_rows)
    last = positions.roll(-1) == 0
    last[-1 - padding], last[-1] = True, padding == 0
    cache = DynamicCache()
    batch = {"input_ids": tokens, "position_ids": positions, "past_key_values": cache, "use_cache": True}
    with attending(model, of_texts(lengths)):
        logits = logits_at(model, model.get_output_embeddings(), last, batch)
    lengths[-1] -= padding
    layers: Sequence[Any] = cache.layers
    for layer in layers:
        split = (side[: sum(lengths), :, 0].split(lengths) for side in (layer.keys, layer.values))
        sides = [pad_sequence(list(states), batch_first=True, padding_side="left") for states in split]
        layer.keys, layer.values = (side.transpose(1, 2) for side in sides)
    return logits, CachedPast(cache, torch.arange(max(lengths)) >= max(lengths) - torch.tensor(lengths)[:, None])


def at_once(model: Any) -> int:
    """How many tokens are read at a time where nobody waits."""
    return _AT_ONCE.get(model.device.type, _AT_ONCE_ELSEWHERE)


def piece_of(model: Any) -> int:
    """How many tokens are read at a time while others wait for theirs."""
    return _PIECE.get(model.device.type, _PIECE_ELSEWHERE)


def read_all(model: Any, adapters: Rowwise, prompts: Sequence[Prompt], piece: int | None = None) -> Iterator[Read]:
    """Read prompts, some at a time: which they are, the logits behind them, and what was read.

    Those of one adapter that begin alike have their common beginning read once; different adapters share nothing. A
    model that is `unmergeable` reads each prompt by itself, at once. `piece`: the most tokens at a time, a multiple of
    eight: where a text is longer, no prompt comes with the pieces before its last. None for as many as are quickest.
    """
    if unmergeable(model):
        for index, prompt in enumerate(prompts):
            past = CachedPast.empty(model)
            yield [index], *read(model, adapters, [prompt.adapter], [prompt.tokens], past, multiple=1)
        return
    max_tokens = piece or at_once(model)
    rests = [Prompt(prompt.adapter, prompt.tokens[prompt.known :]) for prompt in prompts]
    for part in parts(rests, [index for index, prompt in enumerate(prompts) if prompt.past], 0, max_tokens):
        past = CachedPast.from_prompts([prompts[index] for index in part])
        rows, texts = [rests[index].adapter for index in part], [rests[index].tokens for index in part]
        yield part, *(yield from _pieces(model, adapters, rows, texts, past, piece))
    unshared: list[int] = []
    order = sorted((index for index, prompt in enumerate(prompts) if not prompt.past), key=lambda i: prompts[i].adapter)
    for adapter, group in groupby(order, lambda index: prompts[index].adapter):
        members = list(group)
        shared = 0 if slides(model) or len(members) == 1 else common([prompts[index].tokens for index in members])
        if shared < SHARED:
            unshared += members
            continue
        beginning = [prompts[members[0]].tokens[:shared]]
        _, past = yield from _pieces(model, adapters, [adapter], beginning, None, piece, multiple=1)
        for part in parts(prompts, members, shared, max_tokens):
            texts = [prompts[index].tokens[shared:] for index in part]
            shared_past = past.select([0] * len(part))
            yield part, *(yield from _pieces(model, adapters, [adapter] * len(part), texts, shared_past, piece))
    for part in parts(prompts, unshared, 0, max_tokens):
        rows, texts = [prompts[index].adapter for index in part], [prompts[index].tokens for index in part]
        yield part, *(yield from _pieces(model, adapters, rows, texts, None, piece))


def _pieces(
    model: Any,
    adapters: Rowwise,
    rows: Sequence[int],
    texts: Sequence[Sequence[int]],
    past: CachedPast | None,
    piece: int | None,
    **keys: int,
) -> Generator[Read, None, tuple[torch.Tensor, CachedPast]]:
    """As `read`. A text that is longer than a piece is alone; the odd piece comes first, so that padding does."""
    while piece and len(texts[0]) > piece:
        cut = len(texts[0]) % piece or piece
        logits, past = read(model, adapters, rows, [texts[0][:cut]], past, **keys)
        yield [], logits, past
        texts = [texts[0][cut:]]
    return read(model, adapters, rows, texts, past, **keys)


def parts(prompts: Sequence[Prompt], indices: Sequence[int], shared: int, max_tokens: int) -> Iterator[list[int]]:
    """Prompts of like length, the longest first, as many as are read at once, in the order of their adapters."""
    lengths = [len(prompt.tokens) - shared for prompt in prompts]
    for part in batches(sorted(indices, key=lambda index: -lengths[index]), lengths, max_tokens):
        yield sorted(part, key=lambda index: prompts[index].adapter)


def batches(order: Sequence[int], lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices of texts, cut where a batch that is padded would have more than so many tokens."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * max(lengths[batch[0]], lengths[index]) > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def common(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, the last of the shortest left out: something is to be read of each."""
    first, last = min(map(list, prompts)), max(map(list, prompts))  # all others lie between
    limit = min(map(len, prompts)) - 1
    return next((index for index in range(limit) if first[index] != last[index]), limit)


def logits_at(model: Any, head: torch.nn.Module, where: torch.Tensor, batch: Mapping[str, Any]) -> torch.Tensor:
    """The logits at some places of a batch, of shape (places, vocabulary), whatever the model does to its logits.

    Only those places reach the head: of a text of which few tokens are learnt, that saves the largest matrix product.
    `where`: bool of shape (rows, columns).
    """

    def select(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0][where], *inputs[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        logits: torch.Tensor = model(**{"use_cache": False, **batch}).logits
        return logits
    finally:
        handle.remove()
