"""What recipes have in common, as files: each is built once, and those of a base serve its next run, within a bound."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from agentlab.errors import AgentlabError
from agentlab.gguf import metadata
from agentlab.models.store import size_of
from agentlab.runs.atomic import make_folder

OTHERS_LIMIT = 4 << 30  # bytes that the files of other bases may take
_IN_USE_SECONDS = 86_400.0  # a folder used within a day may belong to a run that goes on


@dataclass(frozen=True, slots=True)
class StageCache:
    """The folder of one base and text, one of several below `root`."""

    root: Path
    key: str

    @property
    def folder(self) -> Path:
        return self.root / self.key

    def get(self, name: str, build: Callable[[Path], None], folder: Path | None = None) -> Path:
        """A file, built unless it is there and whole. `folder`: of a checkpoint that belongs to the run alone."""
        file = (folder or self.folder) / name
        if not _is_whole(file):
            make_folder(file.parent)
            file.unlink(missing_ok=True)
            build(file)
        if folder is None:
            os.utime(self.folder)  # a run of days is in use, too
        return file

    def evict_others(self, now: float) -> tuple[int, int]:
        """Remove the least recently used folders of other bases above `OTHERS_LIMIT`; their number and bytes.

        `now` is in UNIX seconds. What has been used within a day stays.
        """
        if self.folder.is_dir():
            os.utime(self.folder, (now, now))
        others = [
            path for path in self.root.glob("*") if path != self.folder and path.is_dir() and not path.is_symlink()
        ]
        excess = sum(map(size_of, others)) - OTHERS_LIMIT
        count, freed = 0, 0
        for path in sorted(others, key=_last_use):
            if freed >= excess or now - _last_use(path) < _IN_USE_SECONDS:
                break
            freed += size_of(path)
            count += 1
            shutil.rmtree(path, ignore_errors=True)  # another run may have been faster
        return count, freed


def _last_use(folder: Path) -> float:
    return folder.stat().st_mtime


def _is_whole(file: Path) -> bool:
    """Whether a file that earlier work has left can be used; a damaged one is made again."""
    try:
        if file.suffix == ".gguf":
            metadata.read(file)
        else:
            with safe_open(file, framework="pt"):
                pass
    except (SafetensorError, OSError, AgentlabError):
        return False
    return True
