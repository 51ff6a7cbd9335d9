"""A file's fingerprint: what changes it, and what it costs nothing to ask twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentlab.errors import MissingFileError
from agentlab.gguf import fingerprint as module
from agentlab.gguf.fingerprint import engine_build, fingerprint

BLOCK = 1 << 20
SIZE = 80 * BLOCK  # beyond what is read whole


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


def changed(path: Path, place: int) -> str:
    """The fingerprint with one byte changed for a moment."""
    for byte in (b"\x01", b"\x00"):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(byte)
        if byte == b"\x01":
            os.utime(path, ns=(1, place))  # a clock too coarse to tell two writes apart is not what is tested
            found = fingerprint(path)
    return found


@pytest.mark.parametrize("place", [0, 5 * BLOCK, 16 * BLOCK - 1, 16 * BLOCK + 7, SIZE - 1], ids=str)
def test_a_changed_byte_at_the_beginning_in_a_block_or_at_the_end_changes_it(model: Path, place: int) -> None:
    before = fingerprint(model)
    assert before.startswith("sha256:")
    assert changed(model, place) != before


def test_a_changed_byte_between_the_blocks_does_not(model: Path) -> None:
    assert changed(model, 18 * BLOCK) == fingerprint(model)


def test_every_byte_of_a_small_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    path.write_bytes(bytes(3 * BLOCK))
    assert changed(path, 2 * BLOCK + 5) != fingerprint(path)


def test_the_size_changes_it_and_the_name_does_not(model: Path, tmp_path: Path) -> None:
    before = fingerprint(model)
    copy = tmp_path / "copy.gguf"
    model.rename(copy)
    assert fingerprint(copy) == before
    with copy.open("r+b") as file:
        file.truncate(SIZE + BLOCK)
    assert fingerprint(copy) != before


def test_a_file_is_read_once_as_long_as_it_stays(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(model)

    def unread(_: int) -> list[tuple[int, int]]:
        raise AssertionError("it was read again")

    monkeypatch.setattr(module, "_spans", unread)
    assert fingerprint(model) == before


def test_an_empty_file_has_one_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert fingerprint(tmp_path / "empty").startswith("sha256:")
    with pytest.raises(MissingFileError):
        fingerprint(tmp_path / "none")


def test_the_build_is_named_without_importing_it_and_alike_in_every_process() -> None:
    code = (
        "import sys; from agentlab.gguf.fingerprint import engine_build; print(engine_build());"
        "assert 'llama_cpp' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == engine_build()
    assert engine_build().startswith("llama-cpp-python 0.")
