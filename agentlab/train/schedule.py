"""When things happen in a training: rows, batches, learning rate, scorings, checkpoints. Nothing is computed.

Batches are made of rows. Sorted: a row is one conversation, and a batch holds conversations of like length, so that
little of it is padding. Packed: a row holds as many conversations as fit, each with positions of its own. Which ones
share a row or a batch depends on seed and epoch alone.
"""

import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Literal

from agentlab.train.config import TrainingConfig

CHECKPOINTS = 10  # of a training, evenly spread, besides those at the scorings
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
    batches: list[Batch] = []
    for pool in pools:
        rows = [(index,) for index in pool]
        batches += [tuple(rows[at : at + size]) for at in range(0, len(rows), size)]
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
        raise ValueError(f"a conversation has {max(lengths)} tokens, but a row holds only {row_length}")
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
        leftover = (free - lengths[index], row)
        room.insert(bisect_left(room, leftover), leftover)
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


class Steps:
    """The batches of every optimiser step, by its number from 0: a function of the data, the settings and the seed.

    An epoch ends with a step, even if it lacks batches for a whole one. With several devices a step takes
    `grad_accum` batches of each; where the last batches of an epoch do not go round, its first ones come again.
    """

    def __init__(
        self,
        lengths: Sequence[int],  # of the conversations in tokens
        training: TrainingConfig,
        batching: Literal["packed", "sorted"],
        *,
        seed: int,
        devices: int = 1,
    ) -> None:
        self._of = partial(batches_of, lengths, training, batching, seed)
        self._epoch = (0, self._of(0))
        self._devices = devices
        self._each, count = training.grad_accum * devices, len(self._epoch[1])
        self.per_epoch = math.ceil(count / self._each)
        self.total = optimizer_steps(count, self._each, training.epochs)

    def of(self, step: int, device: int = 0) -> list[Batch]:
        """The batches whose gradients one device adds up in a step."""
        epoch, position = divmod(step, self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._of(epoch))
        epoch_batches = self._epoch[1]
        batches = epoch_batches[position * self._each : (position + 1) * self._each]
        batches += [epoch_batches[index % len(epoch_batches)] for index in range(-len(batches) % self._devices)]
        return batches[device :: self._devices]


def resolve_batching(training: TrainingConfig, device: str) -> Literal["packed", "sorted"]:
    """What `auto` means on a device: a CPU gains little from packed rows, whose mask it has to apply in full."""
    if training.batching != "auto":
        return training.batching
    return "packed" if device == "cuda" else "sorted"


def side_by_side(training: TrainingConfig, device: str) -> bool:
    """Whether batches of adapters that are trained together go through the model at once, or in turn.

    A CPU is busy with one batch, and flash attention wants all in a single row.
    """
    return device != "cpu" and training.attn_implementation != "flash_attention_2"


def learning_rate(training: TrainingConfig, step: int, steps: int) -> float:
    """The rate of a step, numbered from 0: rising in a line over the warm-up, then falling. No step has rate 0.

    cosine falls as half a period of a cosine (arXiv 1608.03983), linear in a line; both would be 0 after the last step.
    """
    warm = math.ceil(training.warmup * steps)
    if step < warm:
        return training.lr * (step + 1) / (warm + 1)
    progress = min(1.0, (step - warm) / max(1, steps - warm))
    if training.schedule == "cosine":
        return training.lr * 0.5 * (1 + math.cos(math.pi * progress))
    return training.lr * (1 - progress if training.schedule == "linear" else 1.0)


def marks(steps: int, count: int) -> frozenset[int]:
    """Numbers of done steps that divide a training into `count` equal parts; the last one is its end."""
    return frozenset(max(1, round(steps * part / count)) for part in range(1, count + 1))


def is_over(training: TrainingConfig, step: int, steps: int, eval_losses: Sequence[tuple[int, float]]) -> bool:
    """Whether a training is at its end, or at that of its patience."""
    if step >= steps:
        return True
    if training.patience is None or not eval_losses:
        return False
    best = min(range(len(eval_losses)), key=lambda index: eval_losses[index][1])
    return len(eval_losses) - 1 - best >= training.patience
