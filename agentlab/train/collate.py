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

    Attributes:
        pad_token: fills a row up; any token does, since it is neither seen nor learnt.
        layout: padded: one conversation a row, `input_ids`, `labels` and `attention_mask`.
            packed: several, with `position_ids` from 0 in each and no mask. The model has to be called with
            `use_cache=False`: with a mask or a cache, transformers does not look for the restarts, and attention
            silently crosses from one conversation into the next. What fills a row up counts as one more conversation.
            flat: packed, all of it in a single row, which is what flash attention needs to see the restarts.
    """

    pad_token: int
    layout: Literal["padded", "packed", "flat"]

    @classmethod
    def of(cls, tokenizer: Any, training: TrainingConfig, batching: Literal["packed", "sorted"]) -> Self:
        """What makes the batches of a training."""
        if batching == "sorted":
            return cls.with_padding(tokenizer)
        flat = training.attn_implementation == "flash_attention_2"
        return replace(cls.with_padding(tokenizer), layout="flat" if flat else "packed")

    @classmethod
    def with_padding(cls, tokenizer: Any) -> Self:
        """What makes batches of one conversation a row."""
        token = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return cls(token or 0, "padded")

    def __call__(self, rows: Sequence[Sequence[Example]]) -> dict[str, "Tensor"]:
        """The batch.

        Raises:
            ValueError: a padded row has several conversations.
        """
        import torch

        if self.layout == "flat":
            rows = [[example for row in rows for example in row]]
        if self.layout == "padded" and any(len(row) != 1 for row in rows):
            raise ValueError("a padded row holds one conversation")
        longest = max(sum(len(example.input_ids) for example in row) for row in rows)
        batch = {
            "input_ids": [_join_and_pad([e.input_ids for e in row], longest, self.pad_token) for row in rows],
            "labels": [_join_and_pad([e.labels for e in row], longest, IGNORED) for row in rows],
        }
        if self.layout == "padded":
            batch["attention_mask"] = [_join_and_pad([[1] * len(e.input_ids) for e in row], longest, 0) for row in rows]
        else:
            batch["position_ids"] = [_positions(row, longest) for row in rows]
        return {name: torch.tensor(values) for name, values in batch.items()}


def _join_and_pad(parts: Sequence[Sequence[int]], length: int, filler: int) -> list[int]:
    joined = list(chain.from_iterable(parts))
    return joined + [filler] * (length - len(joined))


def _positions(row: Sequence[Example], length: int) -> list[int]:
    sizes = [len(example.input_ids) for example in row]
    return list(chain.from_iterable(map(range, (*sizes, length - sum(sizes)))))
