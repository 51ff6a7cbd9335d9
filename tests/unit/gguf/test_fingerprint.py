"""A file's fingerprint: every byte changes it, and it costs nothing to ask twice."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentlab.errors import MissingFileError
from agentlab.gguf import fingerprint as module
from agentlab.gguf.fingerprint import engine_build, fingerprint

BLOCK = 1 << 20
SIZE = 80 * BLOCK


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


def changed(path: Path, offset: int) -> str:
    """The fingerprint with one byte changed for a moment."""
    for byte in (b"\x01", b"\x00"):
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(byte)
        if byte == b"\x01":
            os.utime(path, ns=(1, offset))  # a clock too coarse to tell two writes apart is not what is tested
            digest = fingerprint(path)
    return digest


@pytest.mark.parametrize("offset", [0, 5 * BLOCK, 16 * BLOCK - 1, 18 * BLOCK, 50 * BLOCK + 7, SIZE - 1], ids=str)
def test_a_changed_byte_anywhere_changes_it(model: Path, offset: int) -> None:
    before = fingerprint(model)
    assert before.startswith("sha256:")
    assert changed(model, offset) != before


def test_a_byte_that_moves_to_another_place_changes_it(tmp_path: Path) -> None:
    digests = set()
    for offset in (0, 1, BLOCK, 2 * BLOCK, SIZE - BLOCK):
        path = tmp_path / f"{offset}.gguf"
        with path.open("wb") as file:
            file.seek(offset)
            file.write(b"x")
            file.truncate(SIZE)
        digests.add(fingerprint(path))
    assert len(digests) == 5


def test_holes_are_zeros_that_nobody_reads(model: Path, tmp_path: Path) -> None:
    full = tmp_path / "full.gguf"
    full.write_bytes(bytes(SIZE))
    assert fingerprint(full) == fingerprint(model)
    with full.open("r+b") as file:
        file.seek(7)
        file.write(b"GGUF")
        file.truncate(1 << 40)
    began = time.monotonic()
    assert fingerprint(full) != fingerprint(model)
    assert time.monotonic() - began < 2


def test_the_size_changes_it_and_the_name_does_not(model: Path, tmp_path: Path) -> None:
    before = fingerprint(model)
    copy = tmp_path / "copy.gguf"
    model.rename(copy)
    assert fingerprint(copy) == before
    with copy.open("r+b") as file:
        file.truncate(SIZE + BLOCK)
    assert fingerprint(copy) != before


def test_a_file_is_read_once_as_long_as_it_stays(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_path = tmp_path / "kept" / "fingerprints.json"
    before = fingerprint(model, cache_path)
    module._cached_digest.cache_clear()  # as in another process

    def unread(*_: object) -> str:
        raise AssertionError("it was read again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_compute_digest", unread)
        assert fingerprint(model, cache_path) == before
    copy = tmp_path / "copy"  # same size and time, another inode
    with copy.open("wb") as file:
        file.write(b"other")
        file.truncate(SIZE)
    os.utime(copy, ns=(model.stat().st_atime_ns, model.stat().st_mtime_ns))
    copy.replace(model)
    assert fingerprint(model, cache_path) != before


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
