"""One process per run. The kernel drops the lock when its owner dies, however it dies."""

import json
import os
import time
from pathlib import Path
from typing import IO, Any

from agentlab.errors import RunLockedError
from agentlab.files import open_file, open_to_write
from agentlab.runs.atomic import storage_errors

if os.name == "nt":
    import msvcrt

    def _take(file: IO[Any]) -> None:
        # Locks a byte far behind the text, so that others can still read who holds the lock.
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore] # Windows only

    _probe = _take
else:
    import fcntl

    def _take(file: IO[Any]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _probe(file: IO[Any]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)


# A reader that asks `is_held` holds the lock for an instant; a real owner holds it for long.
_TRIES, _PAUSE_SECONDS = 5, 0.02


class Lock:
    """Held from construction to `release`. The file names the run, and the owner's pid and start time."""

    def __init__(self, path: Path, *, run_id: str, now: float) -> None:
        with storage_errors(path):
            self._file = open_to_write(path, "a+")
        try:
            _take_patiently(self._file)
        except OSError as error:
            self._file.seek(0)
            owner = _owner(self._file.read(200))
            self._file.close()
            raise RunLockedError(
                f"Another process{owner} is working on the run {run_id}.",
                hint="Wait until it ends, or stop that process; then resume the run.",
            ) from error
        with storage_errors(path):
            self._file.truncate(0)
            self._file.write(json.dumps({"run": run_id, "pid": os.getpid(), "started": now}))
            self._file.flush()

    def release(self) -> None:
        self._file.close()


def is_held(path: Path) -> bool:
    """Whether some process holds the lock now. Reading rights are enough to ask."""
    try:
        file = open_file(path)
    except OSError:
        return False  # no such lock: nobody has opened the run
    with file:
        try:
            _probe(file)
        except OSError:
            return True
        return False


def _take_patiently(file: IO[str]) -> None:
    for tries_left in reversed(range(_TRIES)):
        try:
            _take(file)
        except OSError:
            if not tries_left:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _owner(text: str) -> str:
    try:
        return f" (pid {int(json.loads(text)['pid'])})"
    except (ValueError, KeyError, TypeError):
        return ""
