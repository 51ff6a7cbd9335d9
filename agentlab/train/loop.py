"""One adapter is trained: TRL's trainer does the steps, `TrainingState` knows what they come to."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - this module is only imported by code that trains

from agentlab import machine
from agentlab.errors import Interrupted
from agentlab.train.adapter import trained_weights
from agentlab.train.base import Base, quietly
from agentlab.train.checkpoints import Progress, Weights
from agentlab.train.collate import Collator
from agentlab.train.config import TrainingConfig
from agentlab.train.dataset import Split
from agentlab.train.loss import mean_loss
from agentlab.train.schedule import resolve_batching
from agentlab.train.state import Tell, TrainingState


class TrainingLoop:
    """One training in progress, in every process that takes part in it."""

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
        """`model` is the base with the adapter, `origin` names what decides the training; else see `train_adapter`.

        Raises:
            RunMismatchError: the folder holds another training.
        """
        self._split, self._training, self._stopped = split, training, stopped
        self._interrupted = False
        with quietly():
            from agentlab.train.trainer import arguments

            bf16, cpu = base.model.dtype is torch.bfloat16, machine.device() == "cpu"
            args = arguments(training, folder, steps=1, seed=seed, bf16=bf16, cpu=cpu)
            self.first, self._device = args.process_index == 0, args.process_index
            batching = resolve_batching(training, machine.device())
            self._collate = Collator.of(base.tokenizer, training, batching)
            self._state = TrainingState(
                split,
                trained_weights(model),
                training,
                batching,
                origin=origin,
                folder=folder / "checkpoints",
                seed=seed,
                tell=tell,
                devices=args.world_size,
                leads=self.first,
            )
            self._trainer = self._trainer_of(base, model, args)
            for weight in self._state.weights.values():
                weight.data = weight.data.float()  # TRL rounds those of quantised models, which loses small updates
            self._state.restore()

    def run(self) -> tuple[Progress, Weights]:
        """Train what is left; what happened, and the best weights.

        Raises: see `train_adapter`.
        """
        if not self._state.is_over:
            self._trainer.train()
        if self._interrupted:
            raise Interrupted("Stopped on request.", hint="Resume the run; it goes on from this step.")
        return self._state.progress, self._state.best()

    def wait(self) -> None:
        """Until all processes are here."""
        self._trainer.accelerator.wait_for_everyone()

    def _trainer_of(self, base: Base, model: Any, args: Any) -> Any:
        """TRL's trainer, which takes the first step that is left for its first."""
        from agentlab.train.trainer import AdapterTrainer, Hooks, StepData

        state, highest = self._state, self._training.lr
        done = state.progress.step
        args.max_steps = max(1, state.steps - done)
        rate = torch.optim.lr_scheduler.LambdaLR(state.optimizer, lambda step: state.lr(done + step) / highest)
        return AdapterTrainer(
            data=StepData(self._batches, done, state.steps),
            example=self._split.train[0],
            model=model,
            args=args,
            processing_class=base.tokenizer,
            callbacks=[Hooks(self._before_step, self._after_step)],
            optimizers=(state.optimizer, rate),
        )

    def _batches(self, step: int) -> list[dict[str, torch.Tensor]]:
        return [self._collate(batch) for batch in self._state.batches(step, self._device)]

    def _before_step(self) -> None:
        self._state.seed_dropout(self._device)
        self._step_began = time.perf_counter()

    def _after_step(self) -> bool:
        """Note the step; whether to stop."""
        loss = float(self._trainer.step_loss)
        self._state.advance(loss, time.perf_counter() - self._step_began, self._held_out_loss)
        over = self._state.is_over
        self._interrupted = not over and self._anyone(self._stopped())
        if self._interrupted:
            self._state.save()
        return over or self._interrupted

    def _held_out_loss(self) -> float:
        """The first process's: on unlike devices last bits differ, and patience has to end for all at once."""
        model, size = self._trainer.model, self._training.batch_size
        loss = mean_loss(model, self._split.held_out, size, self._collate.pad_token)
        if self._trainer.args.world_size == 1:
            return loss
        every = self._trainer.accelerator.gather(torch.tensor([loss], device=self._trainer.args.device))
        return float(every[0])

    def _anyone(self, said: bool) -> bool:
        """Processes stop together, or they would wait for each other for ever."""
        flag = torch.tensor(int(said), device=self._trainer.args.device)
        return bool(self._trainer.accelerator.gather(flag).any())
