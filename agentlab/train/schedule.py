"""When things happen in a training: batches, learning rate, scorings, checkpoints. Nothing is computed."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

from agentlab.train.batching import Batch, batches_of, optimizer_steps
from agentlab.train.config import TrainingConfig

CHECKPOINTS = 10  # of a training, evenly spread, besides those at the scorings


class Steps:
    """The batches of every optimiser step, by its number from 0: a function of the data, the settings and the seed.

    An epoch ends with a step, even if it lacks batches for a whole one. With several devices a step takes
    `grad_accum` batches of each; where the last batches of an epoch do not go round, its first ones come again.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        training: TrainingConfig,
        batching: Literal["packed", "sorted"],
        *,
        seed: int,
        devices: int = 1,
    ) -> None:
        """`lengths` of the conversations in tokens."""
        self._of = partial(batches_of, lengths, training, batching, seed)
        self._epoch = (0, self._of(0))
        self._devices = devices
        self._each, count = training.grad_accum * devices, len(self._epoch[1])
        self.per_epoch = math.ceil(count / self._each)
        self.total = optimizer_steps(count, self._each, training.epochs)

    def of(self, step: int, device: int = 0) -> list[Batch]:
        """The batches whose gradients one device adds up in a step."""
        epoch, place = divmod(step, self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._of(epoch))
        whole = self._epoch[1]
        found = whole[place * self._each : (place + 1) * self._each]
        found += [whole[index % len(whole)] for index in range(-len(found) % self._devices)]
        return found[device :: self._devices]


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
