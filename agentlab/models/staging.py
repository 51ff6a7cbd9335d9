"""A hidden folder beside the target, in which a model is made before it is renamed into place."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from agentlab.errors import StorageError
from agentlab.runs.atomic import hidden_folder, make_folder, storage_errors

_PREFIX = ".making-"
_SLACK = 32 << 20
_ELSEWHERE = "Free some space, or set AGENTLAB_HOME to a writable folder on another disk."


@contextlib.contextmanager
def models_storage(folder: Path) -> Iterator[None]:
    """Complaints of the system about this folder as `StorageError`, with a hint that fits models."""
    try:
        with storage_errors(folder):
            yield
    except StorageError as error:
        raise StorageError(error.message, hint=_ELSEWHERE) from error


@contextlib.contextmanager
def stage(folder: Path, needed: int, action: str) -> Iterator[Path]:
    """An empty folder inside `folder`, removed at the end with all that was not moved out of it.

    `folder`: created if it is not there; `needed`: bytes that have to be free. `action`: the work, for the message:
    "fetching x".

    Raises:
        StorageError: too little space, or the folder cannot be written.
    """
    with models_storage(folder):
        make_folder(folder)
        free = shutil.disk_usage(folder).free
        if free < needed + _SLACK:
            raise StorageError(
                f"{folder} has {free / 1e6:.0f} MB free, but {action} needs {(needed + _SLACK) / 1e6:.0f} MB.",
                hint=_ELSEWHERE,
            )
        with hidden_folder(folder, _PREFIX) as scratch:
            yield scratch
