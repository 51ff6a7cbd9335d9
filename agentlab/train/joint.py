"""Several adapters trained at the same time on one base model, each as it would be trained alone.

Where there is compute to spare (a GPU with the small batches of adapters), batches of all adapters lie side by side in
one forward pass, and the base model's matrices are read once for all. A CPU is busy with one batch; there the adapters
take turns, which takes the memory of one and measured as fast.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - this module is only imported by code that trains

from agentlab import machine
from agentlab.errors import AgentlabError, DataError, Interrupted, UsageError
from agentlab.lora.reading import PREFIX
from agentlab.lora.stacked import Factors, Stack
from agentlab.train.adapter import attached, trained_weights, write_trained
from agentlab.train.base import Base
from agentlab.train.batching import sorted_batches
from agentlab.train.collate import Collator
from agentlab.train.config import LoraConfig, TrainingConfig
from agentlab.train.dataset import Split
from agentlab.train.learner import Learner, Rows
from agentlab.train.loop import Tell
from agentlab.train.loss import learnt_losses
from agentlab.train.schedule import resolve_batching
from agentlab.train.sft import Trained, memory_needed, origin_of, peak_bytes_so_far, remedies
from agentlab.workers import memory


def train_adapters(
    base: Base,
    splits: Sequence[Split],
    lora: LoraConfig,
    training: TrainingConfig,
    *,
    folder: Path,
    seed: int,
    tell: Tell,
    stopped: Callable[[], bool],
) -> tuple[Trained, ...]:
    """Train an adapter on each split, or go on with them: the base is as before afterwards.

    Each starts from the weights, sees the batches and is scored and stopped as `train_adapter` does it with the same
    seed; losses are the same but for rounding. It works in one process.

    Args:
        base: from `load_base`.
        splits: one for each adapter, with at least one example to train on.
        lora: shape of the adapters.
        training: of each of them.
        folder: gets a folder for each adapter, by its number from 0, with its checkpoints and the adapter itself.
        seed: see `train_adapter`.
        tell: hears what `train_adapter` tells, with the number of the `adapter`.
        stopped: asked after every step.

    Returns:
        In the order of the splits. `seconds` of an adapter are those until its end, the others' turns included.

    Raises:
        UsageError: several processes were launched, or as in `train_adapter`, which says what else is raised.
    """
    if not splits or not all(split.train for split in splits):
        raise DataError("There are no conversations to train on.", hint="Lower training.eval_fraction, or add some.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # set by accelerate launch
        raise UsageError("Adapters are trained together in one process.", hint="Use --set together=false.")
    layout = resolve_batching(training)
    together = len(splits) if side_by_side(training) else 1
    widened = training.model_copy(update={"batch_size": training.batch_size * together})
    whole = Split(tuple(chain.from_iterable(split.train for split in splits)), ())
    checkpointing = memory_needed(base, whole, lora, widened).checkpointing
    try:
        with torch.random.fork_rng():
            joint = _Joint(base, splits, lora, training, layout, together, folder, seed, tell, stopped)
            with _trainable(base.model, checkpointing):
                joint.run()
            return joint.written()
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, torch.OutOfMemoryError) or memory.ran_out(error)):
            raise
        advice = remedies(lora, training, checkpointing)
        raise AgentlabError("The training ran out of memory.", hint=advice) from error


def side_by_side(training: TrainingConfig) -> bool:
    """Whether the batches of all adapters go through the model at once; flash attention wants all in a single row."""
    return machine.device() != "cpu" and training.attention != "flash_attention_2"


@contextlib.contextmanager
def _trainable(model: Any, checkpointing: bool) -> Iterator[None]:
    """The model in training mode, on all cores; afterwards as `load_base` left it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(machine.threads())
    try:
        model.train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        yield
    finally:
        if model.is_activation_checkpointing:
            model.activation_checkpointing_disable()
        model.eval()
        torch.set_num_threads(threads)


class _Joint:
    """The learners, and the one model that answers for all of them."""

    def __init__(
        self,
        base: Base,
        splits: Sequence[Split],
        lora: LoraConfig,
        training: TrainingConfig,
        layout: Any,
        together: int,
        folder: Path,
        seed: int,
        tell: Tell,
        stopped: Callable[[], bool],
    ) -> None:
        self._base, self._lora, self._training, self._seed = base, lora, training, seed
        self._together, self._tell, self._stopped = together, tell, stopped
        with attached(base, lora, seed) as model:
            start = {name: weight.detach().float().clone() for name, weight in trained_weights(model).items()}
            layers = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
            frozen = {
                f"{name}.lora_A.weight": module.lora_A["default"].weight.detach().float().clone()
                for name, module in layers.items()
                if f"{name}.lora_A.weight" not in start
            }
            scale = next(module.scaling["default"] for module in layers.values())
        self._learners = [
            Learner(
                split,
                start,
                training,
                layout,
                folder=folder / str(index),
                seed=seed,
                origin=origin_of(base, split, lora, training, seed),
            )
            for index, split in enumerate(splits)
        ]
        weights = [{**frozen, **learner.weights} for learner in self._learners]
        modules = {name.removeprefix(PREFIX): partial(_stacked, weights, name) for name in layers}
        self._stack = Stack(modules, len(splits), scale=scale, dropout=lora.dropout)
        tokenizer = base.tokenizer
        filler = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self._padded = Collator(filler or 0, "padded")
        packed = Collator(filler or 0, "flat" if training.attention == "flash_attention_2" else "packed")
        self._collate = packed if layout == "packed" else self._padded

    def run(self) -> None:
        """Train what is left."""
        self._began = time.perf_counter()
        self._before = [learner.progress.seconds for learner in self._learners]
        while active := [index for index, learner in enumerate(self._learners) if not learner.is_over]:
            for first in range(0, len(active), self._together):
                self._step(active[first : first + self._together])
                if self._stopped() and not all(learner.is_over for learner in self._learners):
                    for learner in self._learners:
                        learner.save()
                    raise Interrupted("Stopped on request.", hint="Resume the run; it goes on from this step.")

    def written(self) -> tuple[Trained, ...]:
        """Write the adapters, once they are trained."""
        with attached(self._base, self._lora, self._seed) as model:
            return tuple(self._written(model, learner) for learner in self._learners)

    def _written(self, model: Any, learner: Learner) -> Trained:
        adapter, progress = learner.folder / "adapter", learner.progress
        write_trained(model, learner.best(), self._base, adapter, progress.origin)
        return Trained(
            adapter=adapter,
            losses=progress.losses,
            eval_losses=progress.eval_losses,
            best_step=progress.best_step or progress.step,
            tokens=progress.tokens,
            seconds=progress.seconds,
            peak_bytes=peak_bytes_so_far(),
        )

    # -- steps --------------------------------------------------------------------------------------------------

    def _step(self, group: Sequence[int]) -> None:
        """One step of some learners: their batches side by side, then an update of each."""
        began = time.perf_counter()
        lead = self._learners[group[0]]
        # as in train_adapter, dropout draws from a generator of the step's own
        key = f"{self._seed}/{lead.progress.step}/0"
        torch.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7]))
        batches = [self._learners[index].batches() for index in group]
        learnt = [sum(_learnt(rows) for rows in each) for each in batches]
        losses = torch.zeros(len(group), device=self._base.model.device)
        for side_by_side in zip_longest(*batches):
            there = [place for place, rows in enumerate(side_by_side) if rows is not None]
            parts = [(group[place], side_by_side[place]) for place in there]
            with self._applied(parts, self._collate) as batch:
                each = torch.split(self._losses(batch), [_learnt(rows) for _, rows in parts])
                means = torch.stack([part.sum() / learnt[place] for place, part in zip(there, each, strict=True)])
                torch.autograd.backward(means.sum())  # inside: with checkpointing, activations are computed again
            losses[there] += means.detach()
        tokens = [sum(len(example.input_ids) for rows in each for row in rows for example in row) for each in batches]
        for index, loss, seen in zip(group, losses.tolist(), tokens, strict=True):
            self._update(index, loss, seen, began)

    @contextlib.contextmanager
    def _applied(self, parts: Sequence[tuple[int, Rows]], collate: Collator) -> Iterator[dict[str, torch.Tensor]]:
        """Rows of some adapters as one batch, with the model under these adapters."""
        batch = collate(list(chain.from_iterable(rows for _, rows in parts)))
        owners = [index for index, rows in parts for _ in rows]
        # in one flat row there is one adapter
        with self._stack.applied(self._base.model, owners[: len(batch["input_ids"])]):
            yield {name: value.to(self._base.model.device) for name, value in batch.items()}

    def _losses(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        model = self._base.model
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.dtype is torch.bfloat16):
            return learnt_losses(model, model.get_output_embeddings(), batch)

    def _update(self, index: int, loss: float, tokens: int, began: float) -> None:
        learner, rate, now = self._learners[index], self._learners[index].lr, time.perf_counter()
        learner.update(loss, tokens, self._before[index] + now - self._began)
        speed = tokens / (now - began)
        step = {"epoch": learner.epoch, "loss": loss, "lr": rate, "tokens": tokens, "tokens_per_second": speed}
        self._report("train.step", index, **step)
        if learner.is_scored_now:
            loss = self._held_out_loss(index)
            self._report("train.eval", index, loss=loss, best=learner.score(loss))
        if learner.is_saved_now:
            learner.save()

    def _report(self, event: str, index: int, **data: Any) -> None:
        learner = self._learners[index]
        self._tell(event, {"adapter": index, "step": learner.progress.step, "steps": learner.steps, **data})

    @torch.no_grad()
    def _held_out_loss(self, index: int) -> float:
        """Mean over the learnt tokens of all held-out conversations of an adapter."""
        examples = self._learners[index].split.held_out
        self._base.model.eval()
        total, count = 0.0, 0
        for rows in sorted_batches([len(each.input_ids) for each in examples], self._training.batch_size, 0, 0):
            with self._applied([(index, [(examples[row[0]],) for row in rows])], self._padded) as batch:
                losses = self._losses(batch)
            total += losses.double().sum().item()
            count += len(losses)
        self._base.model.train()
        return total / count


def _learnt(rows: Rows) -> int:
    return sum(example.learnt for row in rows for example in row)


def _stacked(weights: Sequence[dict[str, torch.Tensor]], layer: str, first: int, count: int) -> Factors:
    """A layer's factors of some learners, as they are now; gradients go back to each."""

    def of(side: str) -> torch.Tensor:
        found = [each[f"{layer}.lora_{side}.weight"] for each in weights[first : first + count]]
        return (torch.stack(found) if count > 1 else found[0][None]).mT

    return of("A"), of("B")
