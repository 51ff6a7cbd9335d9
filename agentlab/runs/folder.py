"""A folder that one piece of work writes to: a run, a trial of it in this or another process, a product."""

import contextlib
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from agentlab.errors import UsageError
from agentlab.runs.atomic import is_temporary, make_folder, write_bytes, write_json, write_text
from agentlab.runs.redact import Redactor

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def is_run_name(name: str) -> bool:
    """Whether a run can be called this."""
    return _NAME.fullmatch(name) is not None and name != "last"


def check_name(runs_dir: Path, name: str) -> None:
    """Raise UsageError if no run of this name can be made in this folder: it is no file name, or taken."""
    if not is_run_name(name):
        raise UsageError(
            f"{name!r} is not a valid run name.",
            hint="Use up to 80 letters, digits, dots, dashes and underscores, not starting with a dot; not `last`.",
        )
    if os.path.lexists(runs_dir / name):
        raise UsageError(
            f"There is already a run named {name}.",
            hint=f"Choose another --run-name, or continue it with --resume {name}.",
        )


class Folder:
    """Names are relative and stay inside; every write is whole or absent, and text has its secrets masked."""

    def __init__(self, path: Path, redactor: Redactor | None = None) -> None:
        self.path = path
        self._redactor = redactor or Redactor()

    def file(self, name: str) -> Path:
        """The path of a file in here, its folder made. Raises UsageError if the name leads out of the folder."""
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or "\\" in name or any(part in ("..", ".") for part in parts):
            raise UsageError(f"{name!r} is not the name of a file inside {self.path.name}.")
        path = self.path.joinpath(*parts)
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise UsageError(f"{path} is a link that points outside of {self.path.name}.", hint="Remove the link.")
        make_folder(path.parent)
        return path

    def folder(self, name: str) -> "Folder":
        return Folder(self.file(name), self._redactor)

    def write_text(self, name: str, text: str) -> Path:
        path = self.file(name)
        write_text(path, self._redactor.mask_file(name, text))
        return path

    def write_json(self, name: str, value: Any) -> Path:
        path = self.file(name)
        write_json(path, self._redactor.mask_tree(value))
        return path

    def write_bytes(self, name: str, data: bytes) -> Path:
        path = self.file(name)
        write_bytes(path, data)
        return path


CREATING = ".creating-"  # how the folder of a run is called until it is whole, with eight hex digits
BEGINNING = ("manifest.json", "config.yaml", "source.yaml", "events.jsonl")  # what it is made with
_ABANDONED_SECONDS = 3600.0  # creating one takes milliseconds


def sweep_run(folder: Path) -> None:
    """Remove half-written files of a run. The caller holds its lock."""
    for leftover in filter(is_temporary, folder.rglob(".*")):
        with contextlib.suppress(OSError):  # it does no harm but take space
            leftover.unlink()


def sweep_creations(runs_dir: Path, now: float) -> None:
    """Remove folders of runs whose creation was killed long ago. `now` is in UNIX seconds.

    One that holds anything but the first files of a run is somebody else's, whatever it is called.
    """
    for leftover in runs_dir.glob(f"{CREATING}{'[0-9a-f]' * 8}"):
        with contextlib.suppress(OSError):  # another process was faster
            if leftover.is_symlink() or now - leftover.stat().st_mtime <= _ABANDONED_SECONDS:
                continue
            files = list(leftover.iterdir())
            if all(file.name in BEGINNING or is_temporary(file) for file in files):
                for file in files:
                    file.unlink()
                leftover.rmdir()
