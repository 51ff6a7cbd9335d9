"""A training between two steps: what is known of it, and what follows from that.

Others compute the steps: `trainer` those of one adapter, `joint` those of several. They ask here what comes next, and
note here what came of it.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, Literal

import torch  # noqa: TID253 - this module is only imported by code that trains

from agentlab.errors import DivergedError
from agentlab.train import checkpoints, schedule
from agentlab.train.checkpoints import Progress, TrainingCheckpoint, Weights
from agentlab.train.config import TrainingJob
from agentlab.train.dataset import TrainingSplit
from agentlab.train.masks import Example

Batch = list[tuple[Example, ...]]  # rows


class TrainingState:
    """Where the training of one adapter stands; a `TrainingCheckpoint` holds all of it."""

    def __init__(
        self,
        split: TrainingSplit,
        weights: Mapping[str, torch.nn.Parameter],  # what is trained, by the names of a PEFT folder
        job: TrainingJob,
        batching: Literal["packed", "sorted"],  # as resolved for the device
        origin: str,
        *,
        devices: int = 1,  # processes that share the steps
        leads: bool = True,  # whether this process is the one that tells and saves
    ) -> None:
        """Begin, or find the last whole checkpoint; `restore` puts its tensors in place.

        Raises:
            RunMismatchError: the folder holds another training.
        """
        device = next(iter(weights.values())).device.type
        self.weights, self.optimizer = weights, checkpoints.adamw(weights, job.training, device)
        training, self._folder, self._seed = job.training, job.folder / "checkpoints", job.seed
        self._training, self._tell, self._devices, self._leads = training, job.tell, devices, leads
        self._learnt = split.train
        lengths = [len(example.input_ids) for example in split.train]
        self._plan = schedule.Steps(lengths, training, batching, seed=job.seed, devices=devices)
        self.steps = self._plan.total  # if its patience lasts
        self._evals = schedule.marks(self.steps, training.evals) if split.held_out else frozenset()
        self._saves = schedule.marks(self.steps, schedule.CHECKPOINTS) | self._evals
        self._checkpoint = checkpoint = checkpoints.last_checkpoint(self._folder, origin)
        self.progress = checkpoint.progress if checkpoint else Progress(origin=origin)
        self._best: Weights = (
            (checkpoint.best or checkpoint.adapter) if checkpoint and checkpoint.progress.best_step else {}
        )
        self._saved = self.progress.step

    def restore(self) -> None:
        """Put the weights and the optimiser's moments of the last checkpoint in place; time counts from here.

        That is a step of its own because a trainer may round the weights that it is given.
        """
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is not None:
            for name, weight in self.weights.items():
                weight.data.copy_(checkpoint.adapter[name])
            checkpoints.restore(self.optimizer, self.weights, checkpoint.optimizer)
        self._began = time.perf_counter() - self.progress.seconds

    # -- what comes next ----------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        return schedule.is_over(self._training, self.progress.step, self.steps, self.progress.eval_losses)

    def lr(self, step: int) -> float:
        return schedule.learning_rate(self._training, step, self.steps)

    def batches(self, step: int, device: int = 0) -> list[Batch]:
        return [self._examples_of(batch) for batch in self._plan.of(step, device)]

    def _examples_of(self, batch: schedule.Batch) -> Batch:
        return [tuple(map(self._learnt.__getitem__, row)) for row in batch]

    def seed_dropout(self, device: int = 0) -> None:
        """Dropout draws from a generator of the next step's own, so that a resume has none to restore."""
        key = f"{self._seed}/{self.progress.step}/{device}"
        torch.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7]))

    def update(self) -> None:
        """Change the weights by their gradients, as TRL's trainer does it."""
        torch.nn.utils.clip_grad_norm_(self.weights.values(), self._training.max_grad_norm)
        for settings in self.optimizer.param_groups:
            settings["lr"] = self.lr(self.progress.step)
        self.optimizer.step()
        self.optimizer.zero_grad()

    # -- what came of it ----------------------------------------------------------------------------------------

    def advance(self, loss: float, seconds: float, score: Callable[[], float]) -> None:
        """Note and tell the step that was just done; score and save where it is time.

        `score`: finds the loss of the held-out conversations under the weights as they are now.

        Raises:
            DivergedError: the loss is not finite, and nothing is noted; or that of the held-out conversations.
            StorageError: the disk is full or not ours.
        """
        before, step = self.progress, self.progress.step + 1
        _check_finite(f"The loss at step {step}", loss)
        tokens = self._tokens(before.step)
        self._note(step=step, losses=(*before.losses, (step, loss)), tokens=before.tokens + tokens)
        self._report(
            "train.step",
            epoch=step / self._plan.per_epoch,
            loss=loss,
            lr=self.lr(before.step),
            tokens=tokens,
            tokens_per_second=tokens / seconds,
        )
        if self.progress.step in self._evals:
            self._note_score(score())
        if self.is_over or self.progress.step in self._saves:
            self.save()

    def best(self) -> Weights:
        """The weights of the best scoring, or the last ones where nothing is held out. On the CPU."""
        return self._best or self._copies()

    def save(self) -> None:
        """Write a checkpoint, unless the last one is of this step; raises StorageError where it cannot be written."""
        if not self._leads or self._saved == self.progress.step:
            return
        best = {} if self.progress.best_step == self.progress.step else self._best
        moments = checkpoints.state_of(self.optimizer, self.weights)
        checkpoint = TrainingCheckpoint(self.progress, self._copies(), best, moments)
        checkpoints.save_checkpoint(self._folder, checkpoint)
        self._saved = self.progress.step

    def _tokens(self, step: int) -> int:
        batches = chain.from_iterable(self.batches(step, device) for device in range(self._devices))
        rows = chain.from_iterable(batches)
        return sum(len(example.input_ids) for example in chain.from_iterable(rows))

    def _note_score(self, loss: float) -> None:
        _check_finite(f"The held-out loss after step {self.progress.step}", loss)
        losses = (*self.progress.eval_losses, (self.progress.step, loss))
        best = loss <= min(eval_loss for _, eval_loss in losses)
        if best:
            self._best = self._copies()
        self._note(eval_losses=losses, best_step=self.progress.step if best else self.progress.best_step)
        self._report("train.eval", loss=loss, best=best)

    def _note(self, **changes: Any) -> None:
        seconds = time.perf_counter() - self._began
        self.progress = self.progress.model_copy(update={**changes, "seconds": seconds})

    def _report(self, event: str, **data: Any) -> None:
        if self._leads:
            self._tell(event, {"step": self.progress.step, "steps": self.steps, **data})

    def _copies(self) -> Weights:
        return {name: weight.detach().cpu().clone() for name, weight in self.weights.items()}


def _check_finite(subject: str, loss: float) -> None:
    if not math.isfinite(loss):
        raise DivergedError(f"{subject} is {loss}.", hint="Lower training.lr, or raise training.warmup.")
