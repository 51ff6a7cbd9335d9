"""One zip file: the run's own files and nothing else, byte for byte the same each time."""

import zipfile
from pathlib import Path

import pytest

from agentlab.errors import StorageError, UsageError
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from agentlab.runs.store import RunRecord, export, find


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    with OpenRun.create(tmp_path / "runs", RunSpec("nas", "", "", "h", 0, name="mine"), RunEnvironment()) as run:
        run.write_bytes("checkpoints/a/model.bin", bytes(3 << 20))
    return find(tmp_path / "runs", "mine")


def test_the_same_run_gives_the_same_bytes(record: RunRecord, tmp_path: Path) -> None:
    first, second = export(record, tmp_path / "1.zip"), export(record, tmp_path / "2.zip")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.testzip() is None
        assert archive.read("mine/checkpoints/a/model.bin") == bytes(3 << 20)


def test_links_leftovers_and_the_lock_stay_behind(record: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("private")
    (record.path / "link").symlink_to(tmp_path / "private")
    (record.path / ".report.md.0badcafe.tmp").write_text("half")
    with zipfile.ZipFile(export(record, tmp_path / "run.zip")) as archive:
        names = set(archive.namelist())
    assert names == {
        f"mine/{name}"
        for name in ("manifest.json", "config.yaml", "source.yaml", "events.jsonl", "checkpoints/a/model.bin")
    }


def test_nothing_is_overwritten_and_no_half_file_stays(record: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "run.zip").write_text("mine")
    with pytest.raises(UsageError, match="already exists"):
        export(record, tmp_path / "run.zip")
    with pytest.raises(StorageError):
        export(record, tmp_path / "absent" / "run.zip")
    assert (tmp_path / "run.zip").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"run.zip", "runs"}
