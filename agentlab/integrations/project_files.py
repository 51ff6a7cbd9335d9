"""A folder that an agent may read and write, and nothing outside of it.

Names come from a language model. Whatever they say, the path that they lead to, links followed, lies inside the folder;
and hidden files stay hidden: `.env` holds keys, `.git` holds programs that run by themselves.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from agentlab.errors import DataError, MissingFileError, UsageError
from agentlab.runs.atomic import make_folder, write_text

MOST_LISTED = 500
MOST_READ = 64 * 1024  # bytes
MOST_WRITTEN = 256 * 1024  # characters
_SKIPPED = {"__pycache__", "node_modules"}


class ProjectFiles:
    """Text files below a folder, by their paths from there."""

    def __init__(self, root: Path) -> None:
        """Look at the folder.

        Raises:
            MissingFileError: it is not there.
        """
        if not root.is_dir():
            raise MissingFileError(f"There is no project folder {root}.", hint="Create it first, or use another one.")
        self.root = root.resolve()

    def listing(self) -> list[str]:
        """Paths of the files, sorted, at most 500; those of hidden and generated folders are left out."""
        return [path.relative_to(self.root).as_posix() for path in islice(_files(self.root), MOST_LISTED)]

    def read(self, name: str) -> str:
        """The text of a file, its first 64 KiB.

        Raises:
            UsageError: the name leads outside, or to something hidden.
            MissingFileError: there is no such file.
            DataError: it is no text, or cannot be read.
        """
        path = self._inside(name)
        if not path.is_file():
            raise MissingFileError(f"There is no file {name!r} in the project.")
        try:
            with path.open("rb") as file:
                content = file.read(MOST_READ + 1)
            return content[:MOST_READ].decode(errors="ignore" if len(content) > MOST_READ else "strict")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{name!r} cannot be read as text.") from error

    def write(self, name: str, text: str) -> None:
        """Write a file, whole or not at all; folders on its way are made.

        Raises:
            UsageError: the name leads outside, or to something hidden; the text is too long, or a folder is there.
            StorageError: it cannot be written.
        """
        path = self._inside(name)
        if len(text) > MOST_WRITTEN:
            raise UsageError(f"A file may have at most {MOST_WRITTEN} characters.")
        if path.is_dir():
            raise UsageError(f"{name!r} is a folder.")
        make_folder(path.parent)
        write_text(path, text.encode(errors="replace").decode())  # half a surrogate pair is legal in JSON only

    def _inside(self, name: str) -> Path:
        try:
            path = (self.root / name).resolve()
            parts = path.relative_to(self.root).parts
        except (ValueError, OSError, RuntimeError):  # outside; no file name at all; a circle of links
            raise UsageError(f"{name!r} is not inside the project.") from None
        if not parts or any(part.startswith(".") for part in (*parts, *PurePosixPath(name).parts) if part != "."):
            raise UsageError(f"{name!r} is hidden; hidden files are neither read nor written.")
        return path


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _SKIPPED or path.is_symlink():
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path
