"""One of several adapters that are trained together: its weights, optimiser, batches, scorings and checkpoints.

Nothing in it depends on the others, so that it goes the way it would go alone.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch  # noqa: TID253 - this module is only imported by code that trains

from agentlab.errors import DivergedError
from agentlab.train import schedule
from agentlab.train.checkpoints import Checkpoint, Progress, Weights, last_checkpoint, save_checkpoint
from agentlab.train.config import TrainingConfig
from agentlab.train.dataset import Split
from agentlab.train.masks import Example
from agentlab.train.optimizer import adamw, restore, state_of

Rows = list[tuple[Example, ...]]  # of one batch


class Learner:
    """An adapter in training; between two steps a `Checkpoint` holds all of its state."""

    def __init__(
        self,
        split: Split,
        start: Mapping[str, torch.Tensor],
        training: TrainingConfig,
        batching: Literal["packed", "sorted"],
        *,
        folder: Path,
        seed: int,
        origin: str,
    ) -> None:
        """Begin, or go on from the last whole checkpoint below `folder`.

        Args:
            split: what is learnt and what is held out.
            start: the weights that are trained, as they are at the beginning; they are not changed.
            training: how.
            batching: as resolved for the device.
            folder: for checkpoints and the adapter.
            seed: of the order.
            origin: see `Progress`.

        Raises:
            RunMismatchError: the folder holds another training.
        """
        self.split, self.folder, self._training = split, folder, training
        lengths = [len(each.input_ids) for each in split.train]
        self._steps = schedule.Steps(lengths, training, batching, seed=seed)
        self._evals = schedule.marks(self._steps.total, training.evals) if split.held_out else frozenset()
        self._saves = schedule.marks(self._steps.total, schedule.CHECKPOINTS) | self._evals
        found = last_checkpoint(folder / "checkpoints", origin)
        self.progress = found.progress if found else Progress(origin=origin)
        self._best: Weights = (found.best or found.adapter) if found and found.progress.best_step else {}
        self.weights = {
            name: torch.nn.Parameter((found.adapter[name].to(value) if found else value).clone())
            for name, value in start.items()
        }
        self._optimizer = adamw(self.weights, training, next(iter(start.values())).device.type)
        if found:
            restore(self._optimizer, self.weights, found.optimizer)

    @property
    def steps(self) -> int:
        """Of the whole training, if its patience lasts."""
        return self._steps.total

    @property
    def epoch(self) -> float:
        """Epochs that are done."""
        return self.progress.step / self._steps.per_epoch

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return schedule.learning_rate(self._training, self.progress.step, self._steps.total)

    @property
    def is_over(self) -> bool:
        """At the end of its steps or of its patience."""
        return schedule.is_over(self._training, self.progress.step, self._steps.total, self.progress.eval_losses)

    @property
    def is_scored_now(self) -> bool:
        """Whether the held-out conversations are due after the step that was just done."""
        return self.progress.step in self._evals

    @property
    def is_saved_now(self) -> bool:
        """Whether a checkpoint is due after the step that was just done."""
        return self.is_over or self.progress.step in self._saves

    def batches(self) -> list[Rows]:
        """The batches of the next step, whose gradients are added up."""
        examples = self.split.train
        found = self._steps.of(self.progress.step)
        return [[tuple(examples[index] for index in row) for row in batch] for batch in found]

    def update(self, loss: float, tokens: int, seconds: float) -> None:
        """Change the weights by their gradients, and note the step.

        Args:
            loss: of the step.
            tokens: that it saw.
            seconds: of this training so far.

        Raises:
            DivergedError: the loss is not finite; the weights are as before.
        """
        step = self.progress.step + 1
        if not math.isfinite(loss):
            raise DivergedError(
                f"The loss of step {step} is {loss}.", hint="Lower training.lr, or raise training.warmup."
            )
        torch.nn.utils.clip_grad_norm_(self.weights.values(), self._training.max_grad_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr
        self._optimizer.step()
        self._optimizer.zero_grad()
        changes = {"step": step, "losses": (*self.progress.losses, (step, loss)), "seconds": seconds}
        self.progress = self.progress.model_copy(update={**changes, "tokens": self.progress.tokens + tokens})

    def score(self, loss: float) -> bool:
        """Note the loss of the held-out conversations; whether it is the best so far, and these weights are kept."""
        losses = (*self.progress.eval_losses, (self.progress.step, loss))
        best = loss <= min(each for _, each in losses)
        if best:
            self._best = self._copies()
        best_step = self.progress.step if best else self.progress.best_step
        self.progress = self.progress.model_copy(update={"eval_losses": losses, "best_step": best_step})
        return best

    def best(self) -> Weights:
        """The weights of the best scoring, or the last ones where nothing is held out. On the CPU."""
        return self._best or self._copies()

    def save(self) -> None:
        """Write a checkpoint, once there is a step to keep.

        Raises:
            StorageError: the disk is full or not ours.
        """
        if not self.progress.step:
            return
        best = {} if self.progress.best_step == self.progress.step else self._best
        checkpoint = Checkpoint(self.progress, self._copies(), best, state_of(self._optimizer, self.weights))
        save_checkpoint(self.folder / "checkpoints", checkpoint)

    def _copies(self) -> Weights:
        return {name: weight.detach().cpu().clone() for name, weight in self.weights.items()}
