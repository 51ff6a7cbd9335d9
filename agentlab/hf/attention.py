"""Attention of texts that lie side by side: each over its own columns. What transformers has is over all of a batch.

Models that are written for other attention ask transformers for a function by name; ours gets one there. No mask is
made for it, and no product for padding.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch  # noqa: TID253 - reached lazily, where a model answers
from torch.nn.functional import scaled_dot_product_attention  # noqa: TID253 - as above
from transformers import AttentionInterface  # noqa: TID253 - as above
from transformers.integrations.sdpa_attention import sdpa_attention_forward  # noqa: TID253 - as above

Attend = Callable[..., torch.Tensor]

_NAME = "agentlab-own-columns"
_CALL = 256  # columns of a row that are read as long as a call takes
_attend: ContextVar[Attend] = ContextVar("attend")


def _call_attention(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
    return _attend.get()(*args, **kwargs), None


AttentionInterface.register(_NAME, _call_attention)


def may_attend(model: Any) -> bool:
    """Whether a model takes `attending`: on a CPU, with torch's attention, which it reaches through transformers.

    Its layers must not slide: they would be given no mask that says so.
    """
    config = model.config.get_text_config(decoder=True)
    is_cpu_sdpa = model.device.type == "cpu" and config._attn_implementation == "sdpa"
    return is_cpu_sdpa and bool(getattr(model, "_supports_attention_backend", False))


@contextmanager
def attending(model: Any, attend: Attend) -> Iterator[None]:
    """The model with this function in the place of `sdpa_attention_forward`, inside the `with` block."""
    token = _attend.set(attend)
    model.config._attn_implementation = _NAME  # as `set_attn_implementation`, which takes long, for it looks up kernels
    try:
        yield
    finally:
        model.config._attn_implementation = "sdpa"
        _attend.reset(token)


def of_texts(lengths: Sequence[int]) -> Attend:
    """Texts one behind the other, so many tokens each, and each token as a row of its own."""

    def attend(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _: None, **keys: Any
    ) -> torch.Tensor:
        sides = (torch.split(side.transpose(0, 2), list(lengths), dim=2) for side in (query, key, value))
        outputs = [sdpa_attention_forward(module, q, k, v, None, **keys)[0] for q, k, v in zip(*sides, strict=True)]
        return torch.cat(outputs, dim=1).transpose(0, 1)

    return attend


def of_rows(lengths: Sequence[int], shares: Sequence[slice], dtype: torch.dtype) -> Attend:
    """A token of each row, behind so many columns that end where those of the others do.

    `shares`: of `together`; `dtype`: the model's.
    """
    product = _products if dtype is torch.float32 else scaled_dot_product_attention  # which rounds no score
    widest, parts = max(lengths), list[tuple[slice, slice, torch.Tensor | None]]()
    for rows in shares:
        longest = max(lengths[rows])
        mask = None
        if min(lengths[rows]) < longest:
            hidden = torch.arange(longest) < longest - torch.tensor(lengths[rows])[:, None, None, None]
            mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))
        parts.append((rows, slice(widest - longest, None), mask))

    def attend(  # what else transformers gives, models of this kind do not use, or torch's attention does not know
        _module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **keys: Any
    ) -> torch.Tensor:
        count, heads, _one, size = query.shape
        query = query.reshape(count, key.shape[1], -1, size)  # heads that share a key, as tokens that see the same
        scale = keys.get("scaling") or size**-0.5
        outputs = [
            product(query[rows], key[rows, :, columns], value[rows, :, columns], mask, scale=scale)
            for rows, columns, mask in parts
        ]
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).reshape(count, 1, heads, -1)

    return attend


def _products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, *, scale: float
) -> torch.Tensor:
    """`scaled_dot_product_attention` of few queries, in less time: MKL is quicker with the longer factor in front."""
    scores = (key @ (query * scale).mT).mT
    if mask is not None:
        scores = scores + mask
    return scores.softmax(-1) @ value


def together(lengths: Sequence[int]) -> list[slice]:
    """Neighbouring rows that are best computed as one: padded to the longest, what costs least beside calls."""
    best: list[tuple[int, list[slice]]] = [(0, [])]
    for stop in range(1, len(lengths) + 1):
        longest, costs = 0, list[tuple[int, int]]()
        for start in reversed(range(stop)):
            longest = max(longest, lengths[start])
            costs.append((best[start][0] + _CALL + longest * (stop - start), start))
        cost, start = min(costs)
        best.append((cost, [*best[start][1], slice(start, stop)]))
    return best[-1][1]
