"""What killed processes leave behind in a runs folder: files half-written, runs half-created."""

import contextlib
import shutil
from pathlib import Path

from agentlab.runs.atomic import is_temporary

CREATING = ".creating-"  # how the folder of a run is called until it is whole
_ABANDONED_SECONDS = 3600.0  # creating one takes milliseconds


def sweep_run(folder: Path) -> None:
    """Remove half-written files of a run. The caller holds its lock."""
    for left in filter(is_temporary, folder.rglob(".*")):
        with contextlib.suppress(OSError):  # it does no harm but take space
            left.unlink()


def sweep_creations(runs_dir: Path, now: float) -> None:
    """Remove folders of runs whose creation was killed long ago. `now` is in UNIX seconds."""
    for left in runs_dir.glob(f"{CREATING}*"):
        with contextlib.suppress(OSError):  # another process was faster
            if now - left.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(left)
