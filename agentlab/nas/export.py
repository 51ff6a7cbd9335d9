"""Exported models by name: finding the winner of a run, and giving it a folder of its own."""

import os
import secrets
import shutil
from pathlib import Path
from shlex import quote

from agentlab.errors import MissingFileError, UnknownNameError, UsageError
from agentlab.files import written_path
from agentlab.nas.artefact import WEIGHTS, read_artefact, write_artefact
from agentlab.runs.atomic import storage_errors, sync_folder
from agentlab.runs.document import AnswerDocument, Block, Code
from agentlab.runs.folder import Folder
from agentlab.runs.store import RunRecord, find

WINNER = "winner"  # the folder of a run


def export_artefact(source: Path, target: Path) -> Path:
    """Copy an exported model into the new folder `target`, which appears whole or not at all.

    Raises:
        UsageError: `target` exists and holds something, or is a file.
        MissingFileError, ModelFileError: see `read_artefact`.
        StorageError: it cannot be written.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"{target} already exists.", hint="Use another --out, or an empty folder.")
    artefact = read_artefact(source)
    building = target.with_name(f".{target.name[:64]}.{secrets.token_hex(4)}.tmp")
    try:
        write_artefact(Folder(building), artefact)
        with storage_errors(target):
            if target.exists():
                target.rmdir()
            building.rename(target)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def find_artefact(ref: str, runs_dir: Path, cwd: Path) -> tuple[Path, RunRecord | None]:
    """The exported folder that a name means, and its run: a run's winner, or any folder by its path.

    Raises:
        UnknownNameError, RunUnreadableError: see `runs.store.find`.
        UsageError: the run searched no architecture.
        MissingFileError: the run has no winner yet.
    """
    folder = cwd / written_path(ref)
    if "/" in ref or os.sep in ref:
        return (folder / WINNER if (folder / WINNER).is_dir() else folder), None
    try:
        record = find(runs_dir, ref, "nas")
    except UnknownNameError:
        if (folder / WEIGHTS).is_file():
            return folder, None
        raise
    if not (record.path / WINNER / WEIGHTS).is_file():
        run_reference = record.id if runs_dir == cwd / "runs" else f"{record.id} --runs-dir {quote(str(runs_dir))}"
        longer = f"Continue the search: agentlab nas --resume {run_reference} --max-iterations N"
        raise MissingFileError(
            f"Run {record.id} is {record.status} and has no winner to forecast with.",
            hint=longer if record.status == "completed" else f"Finish it: agentlab runs resume {run_reference}",
        )
    return record.path / WINNER, record


class ExportAnswer(AnswerDocument):
    """Where an exported model lies, and the command that forecasts with it."""

    path: str
    command: str

    @classmethod
    def of(cls, path: Path) -> "ExportAnswer":
        return cls(path=str(path), command=f"agentlab nas predict {quote(str(path))} --input FILE")

    def blocks(self) -> list[Block]:
        return [Code(self.path)]
