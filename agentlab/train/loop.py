"""The loop of a training: steps, scorings of what is held out, checkpoints; TRL's trainer does the steps."""

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch  # noqa: TID253 - this module is only imported by code that trains

from agentlab import machine
from agentlab.errors import DivergedError, Interrupted
from agentlab.train import schedule
from agentlab.train.adapter import trained_weights
from agentlab.train.base import Base, quietly
from agentlab.train.checkpoints import Checkpoint, Progress, Weights, last_checkpoint, save_checkpoint
from agentlab.train.collate import Collator, Rows
from agentlab.train.config import TrainingConfig
from agentlab.train.dataset import Split
from agentlab.train.loss import mean_loss
from agentlab.train.optimizer import adamw, restore, state_of
from agentlab.train.schedule import resolve_batching

_CHECKPOINTS = "checkpoints"

Tell = Callable[[str, Mapping[str, Any]], None]


class TrainingLoop:
    """One training in progress; between two steps a `Checkpoint` holds all of its state."""

    def __init__(
        self,
        base: Base,
        model: Any,
        split: Split,
        training: TrainingConfig,
        *,
        origin: str,
        folder: Path,
        seed: int,
        tell: Tell,
        stopped: Callable[[], bool],
    ) -> None:
        """`model` is the base with the adapter, `origin` names what decides the training; else see `train_adapter`."""
        self._base, self._model, self._split, self._training = base, model, split, training
        self._folder, self._seed, self._tell, self._stopped = folder, seed, tell, stopped
        self._weights = trained_weights(model)
        self._progress = Progress(origin=origin)
        self._best: Weights = {}
        self._interrupted = False
        tokenizer = base.tokenizer
        self._filler = (tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id) or 0

    def run(self) -> tuple[Progress, Weights]:
        """Train what is left; what happened, and the best weights.

        Raises: see `train_adapter`.
        """
        found = last_checkpoint(self._folder / _CHECKPOINTS, self._progress.origin)
        if found is not None:
            self._progress = found.progress
            self._best = (found.best or found.adapter) if found.progress.best_step else {}
        with quietly():
            self._prepare(found)
        del found
        self._began, self._before = time.perf_counter(), self._progress.seconds
        if not self._is_over():
            self._trainer.train()
        if self._interrupted:
            raise Interrupted("Stopped on request.", hint="Resume the run; it goes on from this step.")
        return self._progress, self._best or self._copies()

    def wait(self) -> None:
        """Until all processes are here."""
        self._trainer.accelerator.wait_for_everyone()

    # -- before the first step ----------------------------------------------------------------------------------

    def _prepare(self, found: Checkpoint | None) -> None:
        from agentlab.train.trainer import AdapterTrainer, Hooks, StepData, arguments

        training, lengths = self._training, [len(each.input_ids) for each in self._split.train]
        cpu = machine.device() == "cpu"
        layout = resolve_batching(training)
        bf16 = self._base.model.dtype is torch.bfloat16
        args = arguments(training, self._folder, steps=1, seed=self._seed, bf16=bf16, cpu=cpu)
        self.first, self._device = args.process_index == 0, args.process_index
        self._steps = schedule.Steps(lengths, training, layout, seed=self._seed, devices=args.world_size)
        self._evals = schedule.marks(self._steps.total, training.evals) if self._split.held_out else frozenset()
        self._saves = schedule.marks(self._steps.total, schedule.CHECKPOINTS) | self._evals
        args.max_steps = max(1, self._steps.total - self._progress.step)
        packed: Literal["packed", "flat"] = "flat" if training.attention == "flash_attention_2" else "packed"
        self._rows = Rows(self._split.train)
        self._collate = Collator(self._filler, "padded" if layout == "sorted" else packed)
        self._optimizer = adamw(self._weights, training, args.device.type)
        rate = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._factor())
        self._trainer = AdapterTrainer(
            data=StepData(self._batches, self._progress.step, self._steps.total),
            example=self._split.train[0],
            model=self._model,
            args=args,
            processing_class=self._base.tokenizer,
            callbacks=[Hooks(self._before_step, self._after_step)],
            optimizers=(self._optimizer, rate),
        )
        for weight in self._weights.values():
            weight.data = weight.data.float()  # TRL rounds those of quantised models, which loses small updates
        if found is not None:
            for name, weight in self._weights.items():
                weight.data.copy_(found.adapter[name])
            restore(self._optimizer, self._weights, found.optimizer)

    def _factor(self) -> Callable[[int], float]:
        """From the number of a step since the start or the resume to its share of the highest learning rate."""
        training, done, steps = self._training, self._progress.step, self._steps.total
        return lambda step: schedule.learning_rate(training, done + step, steps) / training.lr

    def _batches(self, step: int) -> list[dict[str, torch.Tensor]]:
        return [self._collate([self._rows[row] for row in batch]) for batch in self._steps.of(step, self._device)]

    # -- steps --------------------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        return schedule.is_over(self._training, self._progress.step, self._steps.total, self._progress.eval_losses)

    def _before_step(self) -> None:
        """Dropout draws from a generator of the step's own, so that a resume has none to restore."""
        key = f"{self._seed}/{self._progress.step}/{self._device}"
        torch.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7]))
        self._step_began = time.perf_counter()

    def _after_step(self) -> bool:
        """Note and tell the step; score and save where it is time; whether to stop."""
        done, loss = self._progress.step, float(self._trainer.step_loss)
        if not math.isfinite(loss):
            raise DivergedError(
                f"The loss of step {done + 1} is {loss}.", hint="Lower training.lr, or raise training.warmup."
            )
        tokens = sum(
            len(example.input_ids)
            for device in range(self._trainer.args.world_size)
            for batch in self._steps.of(done, device)
            for row in batch
            for example in self._rows[row]
        )
        now = time.perf_counter()
        self._update(
            step=done + 1, losses=(*self._progress.losses, (done + 1, loss)), tokens=self._progress.tokens + tokens
        )
        self._report(
            "train.step",
            epoch=(done + 1) / self._steps.per_epoch,
            loss=loss,
            lr=schedule.learning_rate(self._training, done, self._steps.total),
            tokens=tokens,
            tokens_per_second=tokens / (now - self._step_began),
        )
        if self._progress.step in self._evals:
            self._evaluate()
        over = self._is_over()
        self._interrupted = not over and self._anyone(self._stopped())
        if over or self._interrupted or self._progress.step in self._saves:
            self._save()
        return over or self._interrupted

    def _update(self, **changes: Any) -> None:
        seconds = self._before + time.perf_counter() - self._began
        self._progress = self._progress.model_copy(update={**changes, "seconds": seconds})

    def _report(self, event: str, **data: Any) -> None:
        if self.first:
            self._tell(event, {"step": self._progress.step, "steps": self._steps.total, **data})

    def _anyone(self, said: bool) -> bool:
        """Processes stop together, or they would wait for each other for ever."""
        flag = torch.tensor(int(said), device=self._trainer.args.device)
        return bool(self._trainer.accelerator.gather(flag).any())

    def _evaluate(self) -> None:
        loss = mean_loss(self._trainer.model, self._split.held_out, self._training.batch_size, self._filler)
        losses = (*self._progress.eval_losses, (self._progress.step, loss))
        best = loss <= min(each for _, each in losses)
        if best:
            self._best = self._copies()
        self._update(eval_losses=losses, best_step=self._progress.step if best else self._progress.best_step)
        self._report("train.eval", loss=loss, best=best)

    # -- checkpoints --------------------------------------------------------------------------------------------

    def _copies(self) -> Weights:
        return {name: weight.detach().cpu().clone() for name, weight in self._weights.items()}

    def _save(self) -> None:
        if not self.first:
            return
        best = {} if self._progress.best_step == self._progress.step else self._best
        checkpoint = Checkpoint(self._progress, self._copies(), best, state_of(self._optimizer, self._weights))
        save_checkpoint(self._folder / _CHECKPOINTS, checkpoint)
