"""Files that somebody else has named: where a written path leads, and what may be opened there."""

import errno
import os
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from agentlab.errors import ConfigError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading. Never waits: a pipe would, for whoever may write into it one day.

    Raises:
        OSError: it cannot be opened, or is no regular file; its `strerror` says which.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "its name contains a NUL byte", str(path))
    _require_regular(path, path.stat())  # first: to open a device may already do something
    return open(path, "rb", opener=_open_regular)


def open_to_write(path: Path, mode: str) -> IO[Any]:
    """Open a file of ours that may have come with a copied folder: no link is followed out of it, and no pipe waits.

    `mode`: as of `open`, "ab" say; bytes are not buffered, text is UTF-8.

    Raises:
        OSError: it cannot be opened, or is a link or no regular file.
    """
    if "b" in mode:
        return open(path, mode, buffering=0, opener=_open_own)
    return open(path, mode, encoding="utf-8", opener=_open_own)


def _open_own(name: str, flags: int) -> int:
    return _open_regular(name, flags | getattr(os, "O_NOFOLLOW", 0))


def _open_regular(name: str, flags: int) -> int:
    number = os.open(name, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    try:
        _require_regular(Path(name), os.fstat(number))
    except OSError:
        os.close(number)
        raise
    return number


def written_path(text: str | Path) -> Path:
    """The path that somebody has written; `~` and `~name` are home folders.

    Raises:
        ConfigError: there is no such home, or it is empty, which would be the current folder.
    """
    if not str(text).strip():
        raise ConfigError("A path is empty.", hint="Set it, or remove its key.")
    try:
        return Path(text).expanduser() if str(text).startswith("~") else Path(text)
    except (RuntimeError, ValueError) as error:  # ValueError: a NUL in the name of the user
        raise ConfigError(
            f"{str(text)[:200]!r} starts with a home folder that cannot be found.",
            hint="Use the absolute path, even for a file whose name starts with ~.",
        ) from error


def home(env: Mapping[str, str]) -> Path | None:
    """The user's home folder; None where there is none, as for a user id that no account has."""
    try:
        return Path(env.get("HOME") or Path.home())
    except RuntimeError:
        return None


def _require_regular(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise OSError(number, f"it is {kind}, not a file", str(path))
