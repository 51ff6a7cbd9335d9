"""Files that somebody else has named: where a written path leads, and what may be opened there."""

import errno
import os
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path

from agentlab.errors import ConfigError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading. Never waits: a pipe would, for whoever may write into it one day.

    Raises:
        OSError: it cannot be opened, or is no regular file; its `strerror` says which.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "its name holds a NUL character", str(path))
    _require_regular(path, path.stat())  # first: to open a device may already do something
    file = os.fdopen(os.open(path, _READ), "rb")
    try:
        _require_regular(path, os.fstat(file.fileno()))
    except OSError:
        file.close()
        raise
    return file


def written_path(text: str | Path) -> Path:
    """The path that somebody has written; `~` and `~name` are home folders.

    Raises:
        ConfigError: there is no such home.
    """
    try:
        return Path(text).expanduser()
    except (RuntimeError, ValueError) as error:  # ValueError: a NUL in the name
        raise ConfigError(
            f"{str(text)[:200]!r} names a home folder that is not known here.",
            hint="Write the whole path, or ./~... for a name that begins with ~.",
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
