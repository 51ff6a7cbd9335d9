"""Losses of a compressed model are learnt back; zeros stay, and a training that was stopped goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch

from agentlab.compress.architecture import linears
from agentlab.compress.layerwise import prune
from agentlab.compress.recovery import Teacher, keep_teacher, recover
from agentlab.train.checkpoints import Progress
from agentlab.train.config import LoraConfig, TrainingConfig, TrainingJob

from .decoders import decoder, nothing, statistics, windows

TEXT = windows(52, 24)


def pruned(folder: Path) -> Any:
    model = decoder()
    prune(model, statistics(model, folder / "known"), "magnitude", 0.5, check=nothing)
    return model


def recovered(model: Any, folder: Path, teacher: Teacher | None, check: Any = nothing) -> Progress:
    training = TrainingConfig(epochs=3, batch_size=4, lr=1e-3, evals=3)
    job = TrainingJob(lora=LoraConfig(r=8), training=training, folder=folder, seed=0)
    return recover(model, TEXT, 4, job, "x", teacher=teacher, bf16=False, check=check)


def teacher(folder: Path) -> Teacher:
    return keep_teacher(decoder(), TEXT, folder / "teacher.safetensors", "x", check=nothing)


def test_distillation_brings_a_sparse_model_nearer_and_its_zeros_stay(tmp_path: Path) -> None:
    model = pruned(tmp_path)
    zeros = {name: module.weight == 0 for name, module in linears(model).items()}
    progress = recovered(model, tmp_path / "job", teacher(tmp_path))
    losses = [loss for _, loss in progress.eval_losses]
    assert progress.losses[0][1] > losses[0] > losses[1] > losses[2]
    for name, module in linears(model).items():
        assert torch.equal(module.weight == 0, zeros[name])
        assert type(module) is torch.nn.Linear


def test_cross_entropy_learns_the_text(tmp_path: Path) -> None:
    progress = recovered(pruned(tmp_path), tmp_path / "job", None)
    assert sum(loss for _, loss in progress.losses[-4:]) < sum(loss for _, loss in progress.losses[:4])


def test_a_recovery_that_was_stopped_comes_out_the_same(tmp_path: Path) -> None:
    full, cut = pruned(tmp_path), pruned(tmp_path)
    before = {name: module.weight.clone() for name, module in linears(cut).items()}
    recovered(full, tmp_path / "whole", teacher(tmp_path))
    calls: list[int] = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recovered(cut, tmp_path / "cut", teacher(tmp_path), stop)
    assert all(torch.equal(module.weight, before[name]) for name, module in linears(cut).items())
    recovered(cut, tmp_path / "cut", teacher(tmp_path))
    assert all(
        torch.equal(a.weight, b.weight) for a, b in zip(linears(full).values(), linears(cut).values(), strict=True)
    )


def test_distributions_are_computed_once(tmp_path: Path) -> None:
    first = teacher(tmp_path)
    path = tmp_path / "teacher.safetensors"
    written = path.stat().st_mtime_ns
    second = teacher(tmp_path)
    assert path.stat().st_mtime_ns == written
    assert torch.equal(first.logs, second.logs)
    keep_teacher(decoder(), TEXT, path, "another", check=nothing)
    assert path.stat().st_mtime_ns != written


def test_the_divergence_is_bounded_by_the_whole_one_and_nothing_from_itself(tmp_path: Path) -> None:
    stored_teacher = teacher(tmp_path)
    rows = torch.arange(len(TEXT))
    with torch.inference_mode():
        original, pruned_logits = decoder()(TEXT).logits, pruned(tmp_path)(TEXT).logits
    assert stored_teacher.divergence(original, rows).abs().max() < 1e-3
    p, q = original.log_softmax(-1), pruned_logits.log_softmax(-1)
    full_divergence = (p.exp() * (p - q)).sum(-1)
    divergence = stored_teacher.divergence(pruned_logits, rows)
    assert (divergence <= full_divergence + 1e-4).all()
    assert (divergence >= -1e-4).all()
