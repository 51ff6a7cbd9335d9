"""TRL's SFTTrainer, given our batches step by step; it owns devices, precision, clipping and the order of a step.

To it, a training is one epoch with one batch a step: that way it can begin at any step, and a step's batches, an
epoch's end and a resume are the schedule's concern alone.
"""

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - this module is only imported by code that trains
from torch.utils.data import DataLoader, Dataset  # noqa: TID253 - as above
from transformers import PrinterCallback, TrainerCallback  # noqa: TID253 - as above

from agentlab import machine
from agentlab.errors import Interrupted
from agentlab.train.adapter import trained_weights
from agentlab.train.base import TrainingBase, quietly
from agentlab.train.checkpoints import Progress, Weights
from agentlab.train.collate import Collator
from agentlab.train.config import TrainingConfig, TrainingJob
from agentlab.train.dataset import TrainingSplit
from agentlab.train.loss import learnt_losses, mean_loss
from agentlab.train.masks import IGNORED, Example
from agentlab.train.schedule import resolve_batching
from agentlab.train.state import TrainingState

# They have no types that hold.
_trl: Any = importlib.import_module("trl")
_datasets: Any = importlib.import_module("datasets")

Inputs = dict[str, torch.Tensor]


class StepData(Dataset[list[Inputs]]):
    """The batches of the steps `first` to `total`, made when they are asked for."""

    def __init__(self, make: Callable[[int], list[Inputs]], first: int, total: int) -> None:
        self._make, self._first, self._total = make, first, total

    def __len__(self) -> int:
        return self._total - self._first

    def __getitem__(self, index: int) -> list[Inputs]:
        return self._make(self._first + index)


class AdapterTrainer(_trl.SFTTrainer):  # type: ignore[misc] # as above
    """Trains on `StepData`. `step_loss` is the loss of the last step, a mean over all its learnt tokens."""

    def __init__(self, *, data: StepData, example: Example, **options: Any) -> None:
        # TRL wants to see what a data set is like; what is trained on comes from the loader below
        seen = _datasets.Dataset.from_dict({"input_ids": [list(example.input_ids)], "labels": [list(example.labels)]})
        super().__init__(train_dataset=seen, data_collator=lambda rows: rows, **options)
        self.remove_callback(PrinterCallback)
        self._data = data
        self.step_loss = torch.zeros(())

    def get_train_dataloader(self) -> DataLoader[list[Inputs]]:
        """The steps in their order. The loader has a generator of its own, or it would draw from torch's."""
        return DataLoader(self._data, batch_size=None, collate_fn=lambda one: one, generator=torch.Generator())

    def floating_point_ops(self, inputs: Any) -> int:  # noqa: ARG002 - transformers calls it
        return 0

    def training_step(
        self,
        model: Any,
        inputs: list[Inputs],
        num_items_in_batch: Any = None,  # noqa: ARG002 - transformers gives it
    ) -> torch.Tensor:
        """All batches of a step; each learnt token weighs the same, in whichever batch and on whichever device."""
        counts = torch.stack([(batch["labels"][:, 1:] != IGNORED).sum() for batch in inputs])
        count = self.accelerator.gather(counts.sum().to(self.args.device)).sum()
        losses = []
        for index, batch in enumerate(inputs):
            last = index == len(inputs) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                losses.append(super().training_step(model, batch, num_items_in_batch=count))
        self.step_loss = self.accelerator.reduce(torch.stack(losses).sum(), reduction="mean")
        return self.step_loss

    def compute_loss(
        self, model: Any, inputs: Inputs, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """TRL's where it has kernels for learnt tokens alone; on a CPU it would compute the logits of all of them."""
        if self.args.device.type == "cuda" or self.aux_loss_enabled:
            loss: torch.Tensor = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            return loss
        losses = learnt_losses(model, self.model.get_output_embeddings(), inputs)
        mean: torch.Tensor = losses.sum() / num_items_in_batch * self.accelerator.num_processes
        return mean


def arguments(training: TrainingConfig, folder: Path, *, steps: int, seed: int, bf16: bool, cpu: bool) -> Any:
    """What TRL is told: nothing is saved, printed, reported or evaluated by it."""
    args = _trl.SFTConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=training.lr,
        max_grad_norm=training.max_grad_norm,
        seed=seed,
        bf16=bf16,
        use_cpu=cpu,
        gradient_checkpointing=None,  # an old name for the next, which TRL sets
        activation_checkpointing=False,  # switched on by us, in the way that needs no gradients of the inputs
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        logging_nan_inf_filter=False,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
    )
    if args.n_gpu > 1:
        args._n_gpu = 1  # several GPUs take `accelerate launch`; TRL refuses to be given them in one process
    return args


class TrainingLoop(TrainerCallback):
    """One training in progress, in every process that takes part; `TrainingState` knows what its steps come to."""

    def __init__(self, base: TrainingBase, model: Any, split: TrainingSplit, job: TrainingJob, origin: str) -> None:
        """`model` is the base with the adapter, `origin` names what decides the training; else see `train_adapter`."""
        self._split, self._training, self._stopped = split, job.training, job.stopped
        self._interrupted = False
        with quietly():
            bf16, cpu = base.model.dtype is torch.bfloat16, machine.device() == "cpu"
            args = arguments(job.training, job.folder, steps=1, seed=job.seed, bf16=bf16, cpu=cpu)
            self.first, self._device = args.process_index == 0, args.process_index
            batching = resolve_batching(job.training, machine.device())
            self._collate = Collator.of(base.tokenizer, job.training, batching)
            self._state = TrainingState(
                split, trained_weights(model), job, batching, origin, devices=args.world_size, leads=self.first
            )
            self._trainer = self._trainer_of(base, model, args)
            for weight in self._state.weights.values():
                weight.data = weight.data.float()  # TRL rounds those of quantised models, which loses small updates
            self._state.restore()

    def run(self) -> tuple[Progress, Weights]:
        """Train what is left; what happened, and the best weights. Raises as `train_adapter`."""
        if not self._state.is_over:
            self._trainer.train()
        if self._interrupted:
            raise Interrupted("Stopped on request.", hint="Resume the run; it continues from this step.")
        return self._state.progress, self._state.best()

    def wait(self) -> None:
        self._trainer.accelerator.wait_for_everyone()

    def _trainer_of(self, base: TrainingBase, model: Any, args: Any) -> Any:
        """TRL's trainer, which takes the first step that is left for its first."""
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
            callbacks=[self],
            optimizers=(state.optimizer, rate),
        )

    def _batches(self, step: int) -> list[dict[str, torch.Tensor]]:
        return [self._collate(batch) for batch in self._state.batches(step, self._device)]

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._state.seed_dropout(self._device)
        self._step_began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - by name
        """Note the step, after the weights have changed, and say whether to stop."""
        loss = float(self._trainer.step_loss)
        self._state.advance(loss, time.perf_counter() - self._step_began, self._held_out_loss)
        is_over = self._state.is_over
        self._interrupted = not is_over and self._anyone(self._stopped())
        if self._interrupted:
            self._state.save()
        control.should_training_stop = is_over or self._interrupted or control.should_training_stop

    def _held_out_loss(self) -> float:
        """The first process's: on unlike devices last bits differ, and patience has to end for all at once."""
        model, size = self._trainer.model, self._training.batch_size
        loss = mean_loss(model, self._split.held_out, size, self._collate.pad_token)
        if self._trainer.args.world_size == 1:
            return loss
        every = self._trainer.accelerator.gather(torch.tensor([loss], device=self._trainer.args.device))
        return float(every[0])

    def _anyone(self, stopped: bool) -> bool:
        """Processes stop together, or they would wait for each other for ever."""
        flag = torch.tensor(int(stopped), device=self._trainer.args.device)
        return bool(self._trainer.accelerator.gather(flag).any())


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Leave the global generators of Python, numpy and torch as they were found."""
    import random

    import numpy as np

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
