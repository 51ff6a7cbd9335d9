"""The order of training: which conversations share a batch, and which share a row. Functions of seed and epoch alone.

Batches are made of rows. Sorted: a row is one conversation, and a batch holds conversations of like length, so that
little of it is padding. Packed: a row holds as many conversations as fit, each with positions of its own.
"""

import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from agentlab.train.config import TrainingConfig

Row = tuple[int, ...]  # indices of conversations
Batch = tuple[Row, ...]

_POOL = 16  # batches that are sorted together: the more, the less padding, and the less random the company


def sorted_batches(lengths: Sequence[int], size: int, seed: int, epoch: int) -> list[Batch]:
    """Every conversation once, in ceil(n / size) batches of `size` conversations of like length, in random order.

    They are shuffled, sorted by length in pools of some batches each, cut into batches, and these shuffled.
    """
    rng = _generator(seed, epoch)
    order = list(range(len(lengths)))
    rng.shuffle(order)
    step = size * _POOL
    pools = [sorted(order[at : at + step], key=lengths.__getitem__) for at in range(0, len(order), step)]
    batches: list[Batch] = [
        tuple((index,) for index in pool[at : at + size]) for pool in pools for at in range(0, len(pool), size)
    ]
    rng.shuffle(batches)
    return batches


def packed_batches(lengths: Sequence[int], size: int, row_length: int, seed: int, epoch: int) -> list[Batch]:
    """Every conversation once, in batches of `size` rows of at most `row_length` tokens, in random order.

    Best-fit decreasing: the longest conversation first, each into the fullest row that has room. How many rows that
    takes depends on the lengths alone, so all epochs have as many batches; conversations of one length change places.

    Raises:
        ValueError: a conversation is longer than a row.
    """
    if max(lengths, default=0) > row_length:
        raise ValueError(f"a conversation has {max(lengths)} tokens, and a row holds {row_length}")
    rng = _generator(seed, epoch)
    order = list(range(len(lengths)))
    rng.shuffle(order)
    rows = _best_fit(sorted(order, key=lengths.__getitem__, reverse=True), lengths, row_length)
    rng.shuffle(rows)
    return [tuple(rows[at : at + size]) for at in range(0, len(rows), size)]


def _best_fit(order: Sequence[int], lengths: Sequence[int], row_length: int) -> list[Row]:
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, row), sorted
    for index in order:
        at = bisect_left(room, (lengths[index], 0))
        if at == len(room):
            rows.append([])
            free, row = row_length, len(rows) - 1
        else:
            free, row = room.pop(at)
        rows[row].append(index)
        left = (free - lengths[index], row)
        room.insert(bisect_left(room, left), left)
    return [tuple(row) for row in rows]


def batches_of(
    lengths: Sequence[int], training: TrainingConfig, batching: Literal["packed", "sorted"], seed: int, epoch: int
) -> list[Batch]:
    """The batches of an epoch, as many in all of them. `lengths` of the conversations in tokens."""
    if batching == "packed":
        return packed_batches(lengths, training.batch_size, training.max_length, seed, epoch)
    return sorted_batches(lengths, training.batch_size, seed, epoch)


def optimizer_steps(batches: int, grad_accum: int, epochs: float) -> int:
    """Updates of the weights in a training: an epoch ends with one, even if it lacks batches for a whole one.

    Epochs count as they are written: 1.1 of 50 are 55, though the nearest float to 1.1 lies above it.
    """
    return math.ceil(Fraction(str(epochs)) * max(1, math.ceil(batches / grad_accum)))


def _generator(seed: int, epoch: int) -> random.Random:
    return random.Random(f"{seed}/{epoch}")  # noqa: S311 - an order, not a secret
