"""What is removed in passing bears a name that only we give."""

import os
import subprocess
from pathlib import Path

import pytest

from agentlab.runs.atomic import delete, hidden_folder, is_temporary, write_text


def test_what_a_write_leaves_is_known_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary_paths: list[Path] = []
    monkeypatch.setattr(Path, "replace", lambda self, _: temporary_paths.append(self))
    write_text(tmp_path / "manifest.json", "{}")
    assert [is_temporary(path) for path in temporary_paths] == [True]
    foreign = (".tmp", ".notes.tmp", "a.0badcafe.tmp", ".a.0badcafe", ".a.0BADCAFE.tmp", ".a.0badcaf.tmp", "..tmp")
    assert not any(is_temporary(Path(name)) for name in foreign)


def test_only_folders_of_dead_processes_are_swept(tmp_path: Path) -> None:
    dead_process = subprocess.Popen(["true"])
    dead_process.wait()
    surviving_names = [
        f".x-{dead_process.pid}-notes",
        f".x-{dead_process.pid}",
        f".x-{dead_process.pid}-0badcafe-1",
        f".x-{os.getpid()}-0badcafe",
    ]
    for name in (*surviving_names, f".x-{dead_process.pid}-0badcafe"):
        (tmp_path / name).mkdir()
    with hidden_folder(tmp_path, ".x-") as folder:
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*surviving_names, folder.name])


def test_of_a_link_the_link_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "kept" / "inner").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    for name, target in (("to_folder", "kept"), ("to_file", "file"), ("to_nothing", "absent")):
        (tmp_path / name).symlink_to(target)
        delete(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "kept"]
    delete(tmp_path / "file")
    delete(tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []
