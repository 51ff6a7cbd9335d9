"""What compression has lost, learnt back by low-rank changes: from text, or from the original's distributions."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - reached lazily, when a model is recovered
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor  # noqa: TID253 - as above
from torch.nn.utils import parametrize  # noqa: TID253 - as above

from agentlab.compress.architecture import Check, linears
from agentlab.errors import DataError
from agentlab.runs.atomic import make_folder, write_bytes
from agentlab.train.checkpoints import Progress
from agentlab.train.config import LoraConfig, TrainingJob
from agentlab.train.dataset import TrainingSplit
from agentlab.train.masks import Example
from agentlab.train.state import Batch, TrainingState

_KEPT = 64  # likeliest tokens of a distribution
_ORIGIN = "agentlab.teacher.1"  # one entry, because safetensors writes several in random order


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """The original's distributions of the next token after every token of some windows."""

    tokens: Tensor  # the likeliest, int32 (windows, length, kept)
    logs: Tensor  # natural logarithms of their probabilities, float32 of the same shape

    def divergence(self, logits: Tensor, windows: Tensor) -> Tensor:
        """KL(original || model) over the kept tokens and all others as one, nats, for each token (windows, length).

        `logits`: of the model, (windows, length, vocabulary); `windows`: which ones they are.
        """
        logs, tokens = self.logs[windows].to(logits.device), self.tokens[windows].long().to(logits.device)
        ours = logits.float().log_softmax(-1).gather(-1, tokens)
        remainder = _log_remainder(logs)
        return (logs.exp() * (logs - ours)).sum(-1) + remainder.exp() * (remainder - _log_remainder(ours))


@torch.inference_mode()
def keep_teacher(model: Any, windows: Tensor, path: Path, origin: str, *, check: Check) -> Teacher:
    """The distributions of a model, computed once: where `path` has those of this origin, they are read.

    Args:
        model: in evaluation mode.
        windows: tokens, int64 (windows, length).
        origin: names model and text.

    Raises:
        DataError: the model's numbers are not finite.
        StorageError: the disk is full or not ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get(_ORIGIN) == origin:
                return Teacher(file.get_tensor("tokens"), file.get_tensor("logs"))
    except (SafetensorError, OSError):
        pass  # there is none, or half of one
    tokens, logs = [], []
    for window in windows:
        check()
        logits = model(window[None].to(model.device)).logits[0].float()
        if not torch.isfinite(logits).all():
            raise DataError("The logits of the base model are not finite.", hint="Load it in float32.")
        likeliest = logits.log_softmax(-1).topk(min(_KEPT, logits.shape[-1] - 1))
        tokens.append(likeliest.indices.int().cpu())
        logs.append(likeliest.values.cpu())
    tensors = {"tokens": torch.stack(tokens), "logs": torch.stack(logs)}
    make_folder(path.parent)
    write_bytes(path, save(tensors, metadata={_ORIGIN: origin}))
    return Teacher(tensors["tokens"], tensors["logs"])


def recover(
    model: Any,
    windows: Tensor,
    held_out: int,
    job: TrainingJob,
    origin: str,
    *,
    teacher: Teacher | None,
    bf16: bool,
    check: Check,
) -> Progress:
    """Train a low-rank change of all linear layers of the decoder and add it to them, or go on with that.

    Weights that are zero stay zero, in training as well.

    Args:
        model: in float32; its weights are changed once all is done.
        windows: tokens, int64 (windows, length).
        held_out: how many of them, the last ones, are not learnt but scored; the weights of the best scoring count.
        job: how, where to, and who hears of it; of `lora`, rank and alpha count.
        origin: names the model as it is, the text and the teacher.
        teacher: of all windows; None learns the text itself.
        check: called before each step; after what it raises, the next call goes on from there.

    Returns:
        The losses, nats a token.

    Raises:
        RunMismatchError: the folder holds another training.
        DivergedError: a loss is not finite.
        StorageError: the disk is full or not ours.
    """
    split = _split(windows, held_out)
    with _apply_low_rank(model, job.lora, job.seed) as weights:
        state = TrainingState(split, weights, job, "sorted", origin)
        state.restore()
        losses = partial(_losses, model, teacher, bf16)
        while not state.is_over:
            try:
                check()
            except BaseException:
                state.save()
                raise
            began, total = time.perf_counter(), 0.0
            batches = state.batches(state.progress.step)
            for batch in batches:
                loss = losses(batch).mean() / len(batches)
                torch.autograd.backward(loss)
                total += float(loss.detach())
            state.update()
            state.advance(total, time.perf_counter() - began, partial(_held_out, losses, split, job))
        best = state.best()
        for name, weight in weights.items():
            weight.data.copy_(best[name])
    return state.progress


def _split(windows: Tensor, held_out: int) -> TrainingSplit:
    examples = [Example(index, row, row, 0) for index, row in enumerate(map(tuple, windows.tolist()))]
    learnt = len(examples) - held_out
    return TrainingSplit(tuple(examples[:learnt]), tuple(examples[learnt:]))


def _losses(model: Any, teacher: Teacher | None, bf16: bool, batch: Batch) -> Tensor:
    examples = [row[0] for row in batch]
    tokens = torch.tensor([example.input_ids for example in examples], device=model.device)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        logits = model(tokens, use_cache=False).logits
    if teacher is not None:
        return teacher.divergence(logits, torch.tensor([example.line for example in examples]))
    return torch.nn.functional.cross_entropy(logits[:, :-1].float().mT, tokens[:, 1:], reduction="none")


@torch.no_grad()
def _held_out(losses: Any, split: TrainingSplit, job: TrainingJob) -> float:
    size, rows = job.training.batch_size, [(example,) for example in split.held_out]
    token_losses = [losses(rows[start : start + size]).flatten() for start in range(0, len(rows), size)]
    return float(torch.cat(token_losses).double().mean())


class _LowRank(torch.nn.Module):
    """W + scale * B A, where W is not zero."""

    def __init__(self, weight: Tensor, lora: LoraConfig) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.empty(lora.r, weight.shape[1], device=weight.device))
        torch.nn.init.kaiming_uniform_(self.a, a=5**0.5)
        self.b = torch.nn.Parameter(torch.zeros(weight.shape[0], lora.r, device=weight.device))
        self._scale, self._mask = lora.scaled_alpha / lora.r, weight != 0

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self._scale * (self.b @ self.a) * self._mask


@contextmanager
def _apply_low_rank(model: Any, lora: LoraConfig, seed: int) -> Iterator[Mapping[str, torch.nn.Parameter]]:
    """The factors of a change of every linear layer, that is added if all goes well and else taken back."""
    weights: dict[str, torch.nn.Parameter] = {}
    modules = linears(model)
    model.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, module in modules.items():
            change = _LowRank(module.weight.detach(), lora)
            parametrize.register_parametrization(module, "weight", change)
            weights |= {f"{name}.lora_A.weight": change.a, f"{name}.lora_B.weight": change.b}
    done = False
    try:
        yield weights
        done = True
    finally:
        for module in modules.values():
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=done)
        model.requires_grad_(False)


def _log_remainder(logs: Tensor) -> Tensor:
    return torch.log1p(-logs.logsumexp(-1).exp().clamp(max=1 - 1e-6))
