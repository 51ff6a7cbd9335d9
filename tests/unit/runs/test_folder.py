"""A folder that one piece of work writes to: names stay inside, text has its secrets masked."""

import json
from pathlib import Path

import pytest

from agentlab.errors import UsageError
from agentlab.runs.folder import Folder
from agentlab.runs.redact import MASK, Redactor

OUTSIDE = ["../x", "a/../../x", "..", "/etc/passwd", "", ".", "a\\b", "a/..", "\\\\host\\x"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    inside = Folder(tmp_path / "inside")
    for write in (
        inside.file,
        inside.folder,
        lambda name: inside.write_text(name, "x"),
        lambda name: inside.write_json(name, {}),
        lambda name: inside.write_bytes(name, b"x"),
    ):
        with pytest.raises(UsageError, match="is not the name of a file inside"):
            write(name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_a_folder_stays_inside_too(tmp_path: Path) -> None:
    trial = Folder(tmp_path).folder("trials").folder("run_0000")
    assert trial.path == tmp_path / "trials" / "run_0000"
    with pytest.raises(UsageError):
        trial.file("../run_0001/metrics.json")


@pytest.mark.parametrize("name", ["link", "link/x", "link/a/x"])
def test_no_link_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    with pytest.raises(UsageError, match="is a link that points outside of inside"):
        Folder(inside).write_text(name, "x")
    assert list(outside.iterdir()) == []


def test_a_link_that_stays_inside_is_a_name_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    (tmp_path / "link").symlink_to("trials")
    Folder(tmp_path).write_text("link/x", "y")
    assert (tmp_path / "trials" / "x").read_text() == "y"


def test_a_folder_that_is_reached_through_a_link_is_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "run").symlink_to("real")
    assert Folder(tmp_path / "run").write_text("x", "y").read_text() == "y"


def test_folders_of_a_name_are_made_and_files_are_whole(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "new")
    assert folder.write_text("a/b/report.md", "hello\n").read_text() == "hello\n"
    assert json.loads(folder.write_json("a/state.json", {"x": [1]}).read_text()) == {"x": [1]}
    assert folder.write_bytes("plot.png", b"\x89PNG").read_bytes() == b"\x89PNG"
    written = sorted(path.relative_to(folder.path).as_posix() for path in folder.path.rglob("*") if path.is_file())
    assert written == ["a/b/report.md", "a/state.json", "plot.png"]  # nothing temporary is left


def test_naming_a_file_does_not_make_it(tmp_path: Path) -> None:
    assert not Folder(tmp_path).file("a/b.txt").exists()


def test_writing_again_replaces(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write_text("x", "long text")
    assert folder.write_text("x", "y").read_text() == "y"


def test_secrets_are_masked_in_text_here_and_in_folders_below(tmp_path: Path) -> None:
    key = "sk-or-v1-0123456789abcdef0123456789abcdef"
    folder = Folder(tmp_path, Redactor.of({"OPENROUTER_API_KEY": key})).folder("trials/run_0000")
    paths = [folder.write_text("note.txt", f"my key is {key}"), folder.write_json("x.json", {"a": [key]})]
    for path in paths:
        assert key not in path.read_text()
        assert MASK in path.read_text()
