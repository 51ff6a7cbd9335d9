"""Batches as tensors: rows padded on the right, or packed with positions that restart at every conversation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Self

from agentlab.train.config import TrainingConfig
from agentlab.train.masks import IGNORED, Example

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Collator:
    """Makes a batch of rows, the arguments of a model. Tensors are int64 of shape (rows, tokens of the longest row).

    padded: one conversation a row, `input_ids`, `labels` and `attention_mask`.
    packed: several, with `position_ids` from 0 in each and no mask. The model has to be called with `use_cache=False`:
    with a mask or a cache, transformers does not look for the restarts, and attention silently crosses from one
    conversation into the next. What fills a row up counts as one more conversation.
    flat: packed, all of it in a single row, which is what flash attention needs to see the restarts.
    """

    pad_token: int  # fills a row up; any token does, since it is neither seen nor learnt
    layout: Literal["padded", "packed", "flat"]

    @classmethod
    def of(cls, tokenizer: Any, training: TrainingConfig, batching: Literal["packed", "sorted"]) -> Self:
        if batching == "sorted":
            return cls.with_padding(tokenizer)
        flat = training.attn_implementation == "flash_attention_2"
        return replace(cls.with_padding(tokenizer), layout="flat" if flat else "packed")

    @classmethod
    def with_padding(cls, tokenizer: Any) -> Self:
        token = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return cls(token or 0, "padded")

    def __call__(self, rows: Sequence[Sequence[Example]]) -> dict[str, "Tensor"]:
        """Raises ValueError where a padded row has several conversations."""
        import torch

        if self.layout == "flat":
            rows = [list(chain.from_iterable(rows))]
        if self.layout == "padded" and any(len(row) != 1 for row in rows):
            raise ValueError("a padded row must hold exactly one conversation")
        input_ids = [_input_ids(row) for row in rows]
        longest = max(map(len, input_ids))
        batch = {
            "input_ids": [_pad(ids, longest, self.pad_token) for ids in input_ids],
            "labels": [_pad(_labels(row), longest, IGNORED) for row in rows],
        }
        if self.layout == "padded":
            batch["attention_mask"] = [_pad([1] * len(ids), longest, 0) for ids in input_ids]
        else:
            batch["position_ids"] = [_positions(row, longest) for row in rows]
        return {name: torch.tensor(values) for name, values in batch.items()}


def _input_ids(row: Sequence[Example]) -> list[int]:
    return list(chain.from_iterable(example.input_ids for example in row))


def _labels(row: Sequence[Example]) -> list[int]:
    return list(chain.from_iterable(example.labels for example in row))


def _pad(tokens: list[int], length: int, filler: int) -> list[int]:
    return tokens + [filler] * (length - len(tokens))


def _positions(row: Sequence[Example], length: int) -> list[int]:
    sizes = [len(example.input_ids) for example in row]
    return list(chain.from_iterable(map(range, (*sizes, length - sum(sizes)))))
