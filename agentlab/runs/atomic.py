"""Writes that are either whole or absent: temporary file in the same folder, fsync, rename, fsync of the folder.

And reads that are bounded: a file that somebody sent may be of any size.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentlab.errors import StorageError
from agentlab.files import open_file

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp", re.DOTALL)
_OWNED = re.compile(r"(?P<pid>[0-9]+)-[0-9a-f]{8}")
_REASONS = {
    errno.ENOSPC: ("the disk is full", "Free some space or choose another folder with --runs-dir."),
    errno.EDQUOT: ("the disk quota is used up", "Free some space or choose another folder with --runs-dir."),
    errno.EROFS: ("the disk is read-only", "Choose a writable folder with --runs-dir, or set AGENTLAB_HOME."),
    errno.EACCES: ("permission denied", "Choose a writable folder with --runs-dir, or set AGENTLAB_HOME."),
    errno.EPERM: ("permission denied", "Choose a writable folder with --runs-dir, or set AGENTLAB_HOME."),
    errno.EIO: ("the disk reports an input/output error", "Check the disk; the run can be resumed elsewhere."),
    errno.ENOTDIR: ("part of the path is a file", "Choose another folder with --runs-dir."),
    errno.EEXIST: ("a file is in the way", "Move it or choose another folder."),
    errno.ENOTEMPTY: ("a folder is in the way", "Move it or choose another name."),
    errno.ELOOP: ("it is a link", "Replace the link with the file itself."),
    errno.ENAMETOOLONG: ("the name is too long", "Choose a shorter name."),
}


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the system's complaints about a write to `path` into one `StorageError`."""
    try:
        yield
    except OSError as error:
        reason, hint = _REASONS.get(error.errno or 0, (str(error.strerror or error), None))
        raise StorageError(f"Cannot write {path}: {reason}.", hint=hint) from error


def make_folder(path: Path) -> None:
    """Create a folder and its parents."""
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def sync_folder(path: Path) -> None:
    """Make a rename in this folder survive a power cut. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def hidden_folder(folder: Path, prefix: str) -> Iterator[Path]:
    """A new folder inside `folder`, to be renamed when it is whole; what has not been moved by then is removed.

    It names its process, so that what a killed process left behind is known, and removed by the next one.
    """
    import psutil  # here alone: the help of a command does without

    for leftover in folder.glob(f"{prefix}*-*"):
        owner = _OWNED.fullmatch(leftover.name.removeprefix(prefix))
        if owner and not psutil.pid_exists(int(owner["pid"])):
            shutil.rmtree(leftover, ignore_errors=True)
    new_folder = folder / f"{prefix}{os.getpid()}-{secrets.token_hex(4)}"
    new_folder.mkdir()
    try:
        yield new_folder
    finally:
        shutil.rmtree(new_folder, ignore_errors=True)


def delete(path: Path) -> None:
    """Remove a file or a folder; of a link only the link, not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def is_temporary(path: Path) -> bool:
    """Whether this is what a kill in the middle of `write_bytes` leaves behind."""
    return _TEMPORARY.fullmatch(path.name) is not None


def read_text(path: Path, limit: int) -> str:
    """A UTF-8 file of at most `limit` bytes.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is larger, or not UTF-8.
    """
    with open_file(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit >> 20} MiB")
    return content.decode()


def write_bytes(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Replace `path` by `data`, whole or not at all; without `sync`, a power cut may leave half of it.

    Raises:
        StorageError: disk full, read-only or not ours.
    """
    with storage_errors(path):
        temporary = path.with_name(f".{path.name[:64]}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if sync:
            sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON; NaN is refused, because it is not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
