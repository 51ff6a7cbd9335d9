"""Opening a run sweeps what a kill left in it; creating one sweeps old half-made folders."""

import os
from pathlib import Path

from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec


def create(folder: Path) -> OpenRun:
    return OpenRun.create(folder, RunSpec("nas", "", "", "h", 0), RunEnvironment(clock=lambda: 1_800_000_000.0))


def test_what_a_kill_left_half_written_is_swept_on_resume(tmp_path: Path) -> None:
    with create(tmp_path) as run:
        hidden_file = run.write_text("checkpoints/.hidden", "mine")
        path = run.path
    leftovers = [path / ".manifest.json.0badcafe.tmp", path / "checkpoints" / ".model.bin.0badcafe.tmp"]
    for file in leftovers:
        file.write_text("half")
    OpenRun.resume(path, RunEnvironment()).close()
    assert hidden_file.exists()
    assert not any(file.exists() for file in leftovers)


def test_an_abandoned_creation_is_swept_and_a_fresh_one_is_not(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".creating-0badcafe", tmp_path / ".creating-00c0ffee"
    for folder, age in ((old, 7200), (fresh, 1)):
        folder.mkdir()
        os.utime(folder, (1_800_000_000 - age,) * 2)
    create(tmp_path).close()
    assert fresh.exists()
    assert not old.exists()


def test_only_the_first_files_of_a_run_are_swept(tmp_path: Path) -> None:
    """A folder of somebody else is not emptied for its name."""
    foreign, named, home = tmp_path / ".creating-deadbeef", tmp_path / ".creating-notes", tmp_path / "home"
    for folder in (foreign, named, home):
        folder.mkdir()
        (folder / "config.yaml").write_text("mine")
    (foreign / "thesis.txt").write_text("mine")
    (tmp_path / ".creating-00facade").symlink_to(home)
    for folder in (foreign, named, home):
        os.utime(folder, (1_700_000_000,) * 2)
    create(tmp_path).close()
    assert sorted(path.name for path in tmp_path.rglob("*.*") if path.is_file() and "nas" not in str(path.parent)) == [
        "config.yaml",
        "config.yaml",
        "config.yaml",
        "thesis.txt",
    ]
