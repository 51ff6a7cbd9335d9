"""Checkpoints of a training: whole, or as if they were not there."""

from pathlib import Path

import pytest
import torch

from agentlab.errors import RunMismatchError
from agentlab.train.checkpoints import Progress, TrainingCheckpoint, last_checkpoint, save_checkpoint


def _checkpoint(step: int, origin: str = "here") -> TrainingCheckpoint:
    progress = Progress(
        origin=origin,
        step=step,
        losses=tuple((number, 1 / number) for number in range(1, step + 1)),
        eval_losses=((1, 0.5),),
        best_step=1,
        tokens=10 * step,
        seconds=0.1,
    )
    weights = {"m.lora_A.weight": torch.arange(6.0).reshape(2, 3) + step}
    return TrainingCheckpoint(
        progress, weights, {"m.lora_A.weight": torch.ones(2, 3)}, {"m.lora_A.weight.step": torch.tensor(step)}
    )


def test_a_checkpoint_reads_back_to_the_bit(tmp_path: Path) -> None:
    saved = _checkpoint(3)
    save_checkpoint(tmp_path, saved)
    loaded = last_checkpoint(tmp_path, "here")
    assert loaded is not None
    assert loaded.progress == saved.progress
    for part in ("adapter", "best", "optimizer"):
        before, after = getattr(saved, part), getattr(loaded, part)
        assert before.keys() == after.keys()
        assert all(
            torch.equal(value, after[name]) and value.dtype == after[name].dtype for name, value in before.items()
        )


def test_the_newest_two_are_kept_and_a_damaged_one_counts_as_absent(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "none", "here") is None
    (tmp_path / ".step-00000009.safetensors.ab12cd34.tmp").write_bytes(b"torn")
    for step in (2, 4, 11):
        save_checkpoint(tmp_path, _checkpoint(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000004.safetensors",
        "step-00000011.safetensors",
    ]
    newest = tmp_path / "step-00000011.safetensors"
    content = newest.read_bytes()
    changed = bytearray(content)
    changed[-1] ^= 1  # in the middle of a number: the file is still well-formed
    for torn in (b"", content[:200], content[:-3], bytes(changed)):
        newest.write_bytes(torn)
        checkpoint = last_checkpoint(tmp_path, "here")
        assert checkpoint is not None
        assert checkpoint.progress.step == 4


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, _checkpoint(3))
    with pytest.raises(RunMismatchError, match="different data, settings"):
        last_checkpoint(tmp_path, "elsewhere")
