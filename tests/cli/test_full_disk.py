"""A disk that is really full under a product: a small file system that is mounted for the test, and filled.

The space is looked at before the work, and may be gone in the middle of it all the same; both say where, how much and
what to do, leave nothing half-written, and can be tried again once there is room.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentlab.errors import StorageError
from agentlab.gguf.files import quantize_gguf
from agentlab.gguf.writing import write_gguf
from agentlab.lora.reading import Adapter
from agentlab.persona.run import PersonaExperiment
from tests.cli.conftest import Answer
from tests.cli.test_train_persona import SHORT, talks
from tests.unit.evolve.small import workspace as evolvable
from tests.unit.gguf.test_files import checkpoint
from tests.unit.train.merging import train, write_checkpoint
from tests.unit.train.tiny_base import tiny_checkpoint

Call = Callable[..., Answer]

PAGE = 4096
_SIZE = 160 << 20  # more than any command here asks for; what is not filled takes no memory


@dataclass(frozen=True)
class Disk:
    """A file system of its own."""

    path: Path

    def fill(self, free_bytes: int) -> None:
        """Take all of it but so many bytes."""
        status = os.statvfs(self.path)
        with (self.path / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - free_bytes)

    def clear(self) -> None:
        (self.path / "ballast").unlink()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir() if path.name != "ballast")


@pytest.fixture
def disk(workspace: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """The workspace's adapters folder, or another one that a test names, on a small disk."""
    path = workspace / getattr(request, "param", "adapters")
    path.mkdir()
    options = f"size={_SIZE}"
    if not shutil.which("mount"):
        pytest.skip("needs mount")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def parents(workspace: Path) -> Path:
    """Two adapters and their base, on the large disk."""
    base = write_checkpoint(workspace / "models" / "tiny")
    for name in ("analyst", "poet"):
        train(workspace / "given" / name, base)
    return workspace / "given"


@pytest.fixture(params=["known before", "found half-way"])
def surprise(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether space that was seen free is gone when it is written to, as where others write to the same disk."""
    if request.param == "found half-way":
        plenty = type("Usage", (), {"free": 1 << 40})
        monkeypatch.setattr("shutil.disk_usage", lambda _: plenty)
    return bool(request.param == "found half-way")


PRODUCTS: dict[str, tuple[str, ...]] = {
    "blend": ("blend", "given/analyst", "given/poet", "--out", "adapters/made"),
    "merge": ("merge", "given/analyst", "--base", "tiny", "--out", "adapters/made"),
    "export to PEFT": ("export", "given/analyst", "--format", "peft", "--out", "adapters/made"),
    "export to GGUF": ("export", "given/analyst", "--format", "gguf", "--base", "tiny", "--out", "adapters/made"),
}


def refused(answer: Answer, target: Path, surprise: bool) -> None:
    """One message that says where, and how much."""
    assert answer.code == 3, answer.err
    (message,) = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    if surprise:
        assert message.startswith(f"error: Cannot write {target}"), message
        assert message.endswith(": the disk is full.")
    else:
        assert re.fullmatch(
            rf"error: {target.parent} has (only )?0(\.0)? Mi?B free[;,] .+ needs [\d.]+ Mi?B\.", message
        ), message


@pytest.mark.usefixtures("parents")
@pytest.mark.parametrize("free_bytes", [0, 2 * PAGE])
@pytest.mark.parametrize("product", PRODUCTS)
def test_work_on_adapters_leaves_nothing_on_a_full_disk(
    agentlab: Call, disk: Disk, product: str, free_bytes: int, surprise: bool
) -> None:
    disk.fill(free_bytes)
    answer = agentlab("adapters", *PRODUCTS[product])
    refused(answer, disk.path / "made", surprise)
    assert re.search(
        r"hint: Free some space \(.+ needs [\d.]+ Mi?B\), or choose another place with --out\.", answer.err
    )
    assert answer.out == ""
    assert disk.names() == []
    disk.clear()
    done = agentlab("adapters", *PRODUCTS[product])
    assert done.code == 0, done.err
    assert disk.names() == ["made"]


@pytest.fixture
def base(workspace: Path) -> None:
    tiny_checkpoint(workspace / "models" / "tiny")


def training() -> tuple[Any, ...]:
    return "train-persona", "--data", talks("a.jsonl"), "--base", "tiny", "--r", 4, "--epochs", 2, "--bsz", 4, *SHORT


@pytest.mark.usefixtures("base")
def test_a_disk_without_room_for_the_adapter_is_found_before_it_is_trained(
    agentlab: Call, workspace: Path, disk: Disk
) -> None:
    disk.fill(free_bytes=2 * PAGE)
    answer = agentlab(*training(), "--run-name", "mine")
    refused(answer, disk.path / "a", surprise=False)
    assert "hint: Free some space, or choose a folder on another disk with --out." in answer.err
    assert not (workspace / "runs" / "mine").exists()


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize("resume_words", [("runs", "resume", "mine"), ("train-persona", "--resume", "mine")])
def test_an_adapter_that_found_no_room_is_published_on_resume_and_not_trained_again(
    agentlab: Call,
    workspace: Path,
    disk: Disk,
    surprise: bool,
    resume_words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = PersonaExperiment._write

    def fill_and_write(self: Any, *arguments: Any) -> None:
        disk.fill(free_bytes=2 * PAGE)  # others have written to the disk while it was trained
        write(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(PersonaExperiment, "_write", fill_and_write)
        answer = agentlab(*training(), "--run-name", "mine")
    refused(answer, disk.path / "a", surprise)
    assert "hint: Free some space, then: agentlab runs resume mine" in answer.err
    assert disk.names() == []
    steps = trained_steps(workspace / "runs" / "mine")
    assert steps

    disk.clear()
    done = agentlab(*resume_words, "--json")
    assert done.code == 0, done.err
    assert trained_steps(workspace / "runs" / "mine") == steps
    assert disk.names() == ["a"]
    names = {"adapter_config.json", "adapter_model.safetensors", "card.json", "README.md"}
    assert {path.name for path in (disk.path / "a").iterdir()} == names
    (row,) = done.json["result"]["personas"]
    with Adapter(disk.path / "a") as adapter:
        assert adapter.modules
    assert json.loads((disk.path / "a" / "card.json").read_text())["metrics"]["eval_loss"] == row["eval_loss"]


def trained_steps(run: Path) -> list[str]:
    """What a run was told by its training, steps and scorings."""
    lines = (run / "stream.jsonl").read_text().splitlines() + (run / "events.jsonl").read_text().splitlines()
    return [line for line in lines if '"train.' in line]


@pytest.mark.parametrize("disk", ["runs"], indirect=True)
def test_an_evolution_goes_on_to_the_same_children_where_there_is_room_again(
    agentlab: Call, workspace: Path, disk: Disk
) -> None:
    evolvable(workspace)
    words = ("evolve", "--parent=one", "--parent=two", "--base=Llama", "--questions=quiz.jsonl", "--algorithm=ga")
    sizes = ("population=5", "tasks.train=8", "tasks.test=8", "race.first=8", "max_items=120", "genome.kind=deltas")
    command = (*words, *(f"--set={size}" for size in sizes), "--run-name=e")
    uninterrupted = agentlab(*command, f"--runs-dir={workspace / 'elsewhere'}")
    assert uninterrupted.code == 0, uninterrupted.err
    disk.fill(free_bytes=120 << 10)
    answer = agentlab(*command)
    assert answer.code == 3, answer.err
    assert re.search(r"children/main has (only )?0.1 MiB free[;,] (but )?run_\d+ needs 1.0 MiB", answer.err)
    assert "hint: Free some space, then: agentlab runs resume e" in answer.err
    disk.clear()
    done = agentlab("evolve", "--resume=e")
    assert done.code == 0, done.err
    expected, lineage = (
        (runs_dir / "e" / "lineage.json").read_bytes() for runs_dir in (workspace / "elsewhere", disk.path)
    )
    assert lineage == expected


def test_llama_cpp_without_room_for_its_file_is_a_full_disk_and_no_bad_model(workspace: Path, disk: Disk) -> None:
    folder, _ = checkpoint(
        workspace / "model", "llama", hidden_size=256, intermediate_size=512, num_attention_heads=8, head_dim=32
    )
    write_gguf(folder, workspace / "model.gguf", "f32")
    disk.fill(free_bytes=4 * PAGE)
    with pytest.raises(StorageError, match=r"smaller\.gguf: the disk is full"):
        quantize_gguf(workspace / "model.gguf", disk.path / "smaller.gguf", "Q8_0")
    assert disk.names() == []
    disk.clear()
    quantize_gguf(workspace / "model.gguf", disk.path / "smaller.gguf", "Q8_0")
