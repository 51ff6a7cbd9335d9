"""Supervised fine-tuning of one adapter: training, scoring of what is held out, checkpoints, resume.

Works in one process, and in each of those that `accelerate launch` starts; then the first one alone writes files and
tells what happens.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch  # noqa: TID253 - this module is only imported by code that trains

from agentlab import machine
from agentlab.errors import AgentlabError, DataError
from agentlab.train import estimate
from agentlab.train.adapter import attach_adapter, write_trained
from agentlab.train.base import TrainingBase, quietly
from agentlab.train.checkpoints import Progress
from agentlab.train.config import LoraConfig, TrainingConfig, TrainingJob
from agentlab.train.data_report import tokens_of
from agentlab.train.dataset import TrainingSplit
from agentlab.workers import memory
from agentlab.workers.launched import RESUME, lost_another


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training. Losses are nats per learnt token, with the number of done steps."""

    adapter: Path  # in PEFT format, below the training's own folder, with the weights of `best_step`
    losses: tuple[tuple[int, float], ...]
    eval_losses: tuple[tuple[int, float], ...]
    best_step: int
    tokens: int  # seen in `seconds`
    seconds: float  # scorings included
    peak_bytes: int  # the most that the GPU held, or the process where there is none

    @classmethod
    def of(cls, adapter: Path, progress: Progress) -> "Trained":
        return cls(
            adapter=adapter,
            losses=progress.losses,
            eval_losses=progress.eval_losses,
            best_step=progress.best_step or progress.step,
            tokens=progress.tokens,
            seconds=progress.seconds,
            peak_bytes=peak_bytes_so_far(),
        )


def train_adapter(base: TrainingBase, split: TrainingSplit, job: TrainingJob) -> Trained:
    """Train one adapter, or go on with it: the base is as before afterwards.

    The same arguments give the same adapter to the last bit on a CPU in float32 with the same number of threads, in one
    go or with any number of resumes; the caller sets them (`machine.torch_threads`). A kill costs at most a tenth of
    the training. `base`: from `load_base`; `split`: at least one example to train on; without held-out ones the last
    weights are the best.

    Raises:
        Interrupted: `stopped` said so; a checkpoint was written.
        DataError: there is nothing to train on.
        UsageError: the adapter does not fit the base.
        RunMismatchError: the folder holds another training.
        DivergedError: a loss is not finite.
        StorageError: the disk is full or not ours.
        AgentlabError: there is not enough memory, or another process has ended.
    """
    if not split.train:
        raise DataError(
            "There are no conversations to train on.", hint="Lower training.eval_fraction, or add conversations."
        )
    with quietly():
        from agentlab.train.trainer import TrainingLoop, generators_kept

    twice = memory_needed(base, [split], job.lora, job.training, together=False).checkpointing
    with explain_errors(job, twice), generators_kept(), attach_adapter(base, job.lora, job.seed) as model:
        if twice:
            base.model.activation_checkpointing_enable({"use_reentrant": False})
        loop = TrainingLoop(base, model, split, job, origin_of(base, split, job))
        progress, best = loop.run()
        if loop.first:
            write_trained(model, best, base, job.folder / "adapter", progress.origin)
        loop.wait()
    return Trained.of(job.folder / "adapter", progress)


@contextlib.contextmanager
def explain_errors(job: TrainingJob, checkpointing: bool) -> Iterator[None]:
    """What goes wrong in a training and is no bug, in the words of a user.

    Raises:
        AgentlabError: there is not enough memory, or another process has ended.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if lost_another(error):
            raise AgentlabError("Another process of this training run has exited.", hint=RESUME) from error
        if not (isinstance(error, torch.OutOfMemoryError) or memory.ran_out(error)):
            raise
        advice = remedies(job.lora, job.training, checkpointing)
        raise AgentlabError("Training ran out of memory.", hint=advice) from error


def remedies(lora: LoraConfig, training: TrainingConfig, checkpointing: bool) -> str:
    """What takes less memory than these settings."""
    advice = []
    if lora.r > 16:
        advice.append("--r 16")
    if training.batch_size > 1:
        advice.append(f"--grad-accum 32 with --bsz {max(1, training.batch_size * training.grad_accum // 32)}")
    if not checkpointing:
        advice.append("--set training.gradient_checkpointing=on")
    advice.append(f"--set training.max_length={max(32, training.max_length // 2)}")
    return (
        f"Try, in this order: {'; '.join(advice)}. If the settings that define the training stay the "
        "same, the run continues from its last checkpoint."
    )


def memory_needed(
    base: TrainingBase, splits: Sequence[TrainingSplit], lora: LoraConfig, training: TrainingConfig, *, together: bool
) -> estimate.TrainingMemory:
    """What a training on each split is estimated to take here, and whether activations are computed twice for it."""
    return estimate.run_memory(
        estimate.ModelShape.of(base.model.config),
        lora,
        training,
        base.precision,
        [tokens_of(split.train) for split in splits],
        together=together,
        device=machine.device(),
        memory=machine.gpu_memory() or machine.memory().total,
    )


def origin_of(base: TrainingBase, split: TrainingSplit, job: TrainingJob) -> str:
    """SHA-256 of everything that decides the adapter, but for the number of epochs, which may grow, and the device."""
    excluded = {"epochs", "precision", "attn_implementation", "gradient_checkpointing"}
    digest = hashlib.sha256()
    examples = [f"{example.input_ids}{example.labels}" for example in chain(split.train, split.held_out)]
    settings = (job.lora.model_dump_json(), job.training.model_dump_json(exclude=excluded))
    for part in (base.fingerprint, base.precision, *settings, str(job.seed), str(len(split.train)), *examples):
        digest.update(part.encode() + b"\n")
    return digest.hexdigest()


def peak_bytes_so_far() -> int:
    """The most this process has taken: of the GPU's memory, or else resident."""
    if machine.device() == "cuda":
        return torch.cuda.max_memory_allocated()
    seen = memory.of(os.getpid())
    return seen.peak if seen else 0
