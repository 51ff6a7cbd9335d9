"""Several adapters trained at the same time on one base model, each as it would be trained alone.

Where there is compute to spare (a GPU with the small batches of adapters), batches of all adapters lie side by side in
one forward pass, and the base model's matrices are read once for all. A CPU is busy with one batch; there the adapters
take turns, which takes the activations of one and measured as fast.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, zip_longest
from typing import Any

import torch  # noqa: TID253 - this module is only imported by code that trains

from agentlab import machine
from agentlab.errors import DataError, Interrupted, UsageError
from agentlab.lora.reading import PREFIX
from agentlab.lora.stacked import Factors, Stack
from agentlab.train.adapter import attach_adapter, trained_weights, write_trained
from agentlab.train.base import TrainingBase
from agentlab.train.collate import Collator
from agentlab.train.config import Tell, TrainingJob
from agentlab.train.dataset import TrainingSplit
from agentlab.train.loss import learnt_losses, mean_of
from agentlab.train.schedule import resolve_batching, side_by_side
from agentlab.train.sft import Trained, explain_errors, memory_needed, origin_of
from agentlab.train.state import Batch, TrainingState
from agentlab.workers.launched import rank_and_size


def train_adapters(base: TrainingBase, splits: Sequence[TrainingSplit], job: TrainingJob) -> tuple[Trained, ...]:
    """Train an adapter on each split, or go on with them: the base is as before afterwards.

    Each starts from the weights, sees the batches and is scored and stopped as `train_adapter` does it with the same
    seed; losses are the same but for rounding, and for dropout where batches lie side by side: there all adapters draw
    from one generator. It works in one process.

    A split needs at least one example to train on. The job's `folder` gets a folder for each adapter, by its number
    from 0, with its checkpoints and the adapter itself; `tell` hears the number of the `adapter`, too. `seconds` of an
    adapter are those until its end, the others' turns included.

    The result is in the order of the splits.

    Raises:
        UsageError: several processes were launched, or as in `train_adapter`, which says what else is raised.
    """
    if not splits or not all(split.train for split in splits):
        raise DataError(
            "There are no conversations to train on.", hint="Lower training.eval_fraction, or add conversations."
        )
    if rank_and_size(os.environ)[1] > 1:
        raise UsageError(
            "Several adapters can only be trained together in a single process.", hint="Use --set together=false."
        )
    checkpointing = memory_needed(base, splits, job.lora, job.training, together=True).checkpointing
    with explain_errors(job, checkpointing), torch.random.fork_rng():
        joint = _Joint(base, splits, job)
        with _trainable(base.model, checkpointing):
            joint.run()
        return joint.write_adapters()


@contextlib.contextmanager
def _trainable(model: Any, checkpointing: bool) -> Iterator[None]:
    """The model in training mode; afterwards as `load_base` left it."""
    try:
        model.train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        yield
    finally:
        if model.is_activation_checkpointing:
            model.activation_checkpointing_disable()
        model.eval()


class _Joint:
    """The states of all trainings, and the one model that answers for all adapters."""

    def __init__(self, base: TrainingBase, splits: Sequence[TrainingSplit], job: TrainingJob) -> None:
        self._base, self._splits, self._job, self._training = base, splits, job, job.training
        self._together = len(splits) if side_by_side(job.training, machine.device()) else 1
        with attach_adapter(base, job.lora, job.seed) as model:
            start = {name: weight.detach().float().clone() for name, weight in trained_weights(model).items()}
            layers = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
            frozen = {
                f"{name}.lora_A.weight": module.lora_A["default"].weight.detach().float().clone()
                for name, module in layers.items()
                if f"{name}.lora_A.weight" not in start
            }
            scale = next(module.scaling["default"] for module in layers.values())
        batching = resolve_batching(job.training, machine.device())
        self._folders = [job.folder / str(index) for index in range(len(splits))]
        self._states: list[TrainingState] = []
        for index, split in enumerate(splits):
            parameters = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
            adapter_job = replace(job, folder=self._folders[index], tell=partial(_tell_of_adapter, job.tell, index))
            self._states.append(TrainingState(split, parameters, adapter_job, batching, origin_of(base, split, job)))
        for state in self._states:
            state.restore()
        weights = [{**frozen, **state.weights} for state in self._states]
        modules = {name.removeprefix(PREFIX): partial(_stack_factors, weights, name) for name in layers}
        self._stack = Stack(modules, len(splits), scale=scale, dropout=job.lora.dropout)
        self._collate = Collator.of(base.tokenizer, job.training, batching)
        self._padded = replace(self._collate, layout="padded")

    def run(self) -> None:
        while active := [index for index, state in enumerate(self._states) if not state.is_over]:
            for first in range(0, len(active), self._together):
                self._step(active[first : first + self._together])
                if self._job.stopped() and not all(state.is_over for state in self._states):
                    for state in self._states:
                        state.save()
                    raise Interrupted("Stopped on request.", hint="Resume the run; it continues from this step.")

    def write_adapters(self) -> tuple[Trained, ...]:
        trained: list[Trained] = []
        with attach_adapter(self._base, self._job.lora, self._job.seed) as model:
            for state, folder in zip(self._states, self._folders, strict=True):
                write_trained(model, state.best(), self._base, folder / "adapter", state.progress.origin)
                trained.append(Trained.of(folder / "adapter", state.progress))
        return tuple(trained)

    # -- steps --------------------------------------------------------------------------------------------------

    def _step(self, group: Sequence[int]) -> None:
        """One step of some trainings: their batches side by side, then an update of each."""
        began = time.perf_counter()
        states = [self._states[index] for index in group]
        states[0].seed_dropout()
        batches = [state.batches(state.progress.step) for state in states]
        learnt = [sum(map(_learnt, state_batches)) for state_batches in batches]
        losses = torch.zeros(len(group), device=self._base.model.device)
        for abreast in zip_longest(*batches):
            present = [position for position, rows in enumerate(abreast) if rows is not None]
            parts = [(group[position], abreast[position]) for position in present]
            with self._apply_adapters(parts, self._collate) as batch:
                adapter_losses = torch.split(self._losses(batch), [_learnt(rows) for _, rows in parts])
                means = torch.stack(
                    [part.sum() / learnt[position] for position, part in zip(present, adapter_losses, strict=True)]
                )
                torch.autograd.backward(means.sum())  # inside: with checkpointing, activations are computed again
            losses[present] += means.detach()
        for index, state, loss in zip(group, states, losses.tolist(), strict=True):
            state.update()
            state.advance(loss, time.perf_counter() - began, partial(self._held_out_loss, index))

    @contextlib.contextmanager
    def _apply_adapters(
        self, parts: Sequence[tuple[int, Batch]], collate: Collator
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Rows of some adapters as one batch, with the model under these adapters."""
        batch = collate(list(chain.from_iterable(rows for _, rows in parts)))
        owners = list(chain.from_iterable([index] * len(rows) for index, rows in parts))
        # in one flat row there is one adapter
        with self._stack.apply_to(self._base.model, owners[: len(batch["input_ids"])]):
            yield {name: value.to(self._base.model.device) for name, value in batch.items()}

    def _losses(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        model = self._base.model
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.dtype is torch.bfloat16):
            return learnt_losses(model, model.get_output_embeddings(), batch)

    def _held_out_loss(self, index: int) -> float:
        """Mean over the learnt tokens of all held-out conversations of an adapter."""

        def losses(rows: Batch) -> torch.Tensor:
            with self._apply_adapters([(index, rows)], self._padded) as batch:
                return self._losses(batch)

        return mean_of(losses, self._base.model, self._splits[index].held_out, self._training.batch_size)


def _tell_of_adapter(tell: Tell, adapter: int, event: str, data: Mapping[str, Any]) -> None:
    tell(event, {"adapter": adapter, **data})


def _learnt(rows: Batch) -> int:
    return sum(example.learnt for example in chain.from_iterable(rows))


def _stack_factors(weights: Sequence[Mapping[str, torch.Tensor]], layer: str, first: int, count: int) -> Factors:
    """A layer's factors of some adapters, as they are now; gradients go back to each."""

    def of(side: str) -> torch.Tensor:
        factors = [adapter_weights[f"{layer}.lora_{side}.weight"] for adapter_weights in weights[first : first + count]]
        return (torch.stack(factors) if count > 1 else factors[0][None]).mT

    return of("A"), of("B")
