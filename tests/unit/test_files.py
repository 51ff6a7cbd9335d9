"""What may be opened by a name from outside, and where a written path leads."""

import os
import socket
from pathlib import Path

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import ConfigError
from agentlab.files import home, open_file, open_to_write, written_path


def test_a_regular_file_is_opened_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")
    with open_file(tmp_path / "link") as file:
        assert file.read() == b"text"


def test_anything_else_is_named_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name, kind in {
            "pipe": "a pipe",
            "folder": "a folder",
            "socket": "a socket",
            "/dev/zero": "a device",
        }.items():
            with pytest.raises(OSError, match=f"it is {kind}, not a file"):
                open_file(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "absent")
    with pytest.raises(OSError, match="NUL"):
        open_file(tmp_path / "a\0b")


def test_what_is_written_in_a_copied_folder_stays_there(tmp_path: Path) -> None:
    """A link would lead out of it, and a pipe would wait for a reader."""
    (tmp_path / "outside").write_text("keep")
    (tmp_path / "run").mkdir()
    for name in ("lock", "events.jsonl", "stream.jsonl", "texts.jsonl"):
        path = tmp_path / "run" / name
        for mode in ("ab", "a", "a+", "r+b"):
            path.symlink_to(tmp_path / "outside")
            with pytest.raises(OSError, match="symbolic links"):
                open_to_write(path, mode)
            path.unlink()
            os.mkfifo(path)
            with pytest.raises(OSError, match=r"a pipe|No such device"):
                open_to_write(path, mode)
            path.unlink()
    assert (tmp_path / "outside").read_text() == "keep"
    with open_to_write(tmp_path / "run" / "log.txt", "a") as file:
        file.write("é")
    assert (tmp_path / "run" / "log.txt").read_text(encoding="utf-8") == "é"


@pytest.mark.parametrize("text", ["~nosuchuser", "~nosuchuser/models/x.gguf", "~a\0b/x"])
def test_a_home_of_nobody_is_no_path(text: str, tmp_path: Path) -> None:
    for use in (written_path, Workspace(tmp_path, tmp_path).resolve):
        with pytest.raises(ConfigError, match="home folder that cannot be found"):
            use(text)
    for name in ("AGENTLAB_HOME", "AGENTLAB_CACHE"):
        with pytest.raises(ConfigError, match="home folder"):
            Workspace.locate({name: "~nosuchuser", "HOME": "/"}, tmp_path)


def test_a_user_without_a_home_keeps_the_cache_in_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert home({}) is None
    assert Workspace.locate({}, tmp_path).cache == tmp_path / ".cache" / "agentlab"
    assert Workspace.locate({"HOME": "/home/me"}, tmp_path).cache == Path("/home/me/.cache/agentlab")
