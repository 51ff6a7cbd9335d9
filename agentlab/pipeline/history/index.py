"""The index of a runs folder. Files are the truth: the index is a shortcut to them, and any trouble with it costs time
and one warning, nothing else."""

import contextlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

from agentlab.errors import RunUnreadableError, StorageError
from agentlab.pipeline.branches.digest import Digest, StageShare
from agentlab.pipeline.graph import INPUT
from agentlab.pipeline.history.listing import Hit, search
from agentlab.pipeline.history.reading import COMMAND, forget_lost_texts, read, stamps
from agentlab.pipeline.store import Store
from agentlab.runs.atomic import make_folder
from agentlab.runs.manifest import read_manifest
from agentlab.runs.sqlite import ForeignFileError, Schema, is_busy, transaction
from agentlab.runs.store import RunRecord

T = TypeVar("T")

_AT_ONCE = 50  # runs per transaction: others want to write, too, and a stop loses little
_IN_THE_WAY = {  # what SQLite says of a sound file that cannot be used here and now; all else is damage
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM),
}
_BUSY_SECONDS = 2.0  # how long a refresh waits for another process's

_TABLES = (
    # a run of another command has its stamp only, so that it is not read again
    """CREATE TABLE runs (
        id INTEGER PRIMARY KEY, folder TEXT NOT NULL, name TEXT NOT NULL, stamp TEXT NOT NULL, command TEXT NOT NULL,
        status TEXT NOT NULL, created TEXT NOT NULL, born INTEGER NOT NULL, seconds REAL NOT NULL, parent TEXT,
        error TEXT, excerpt TEXT NOT NULL, config TEXT NOT NULL, UNIQUE (folder, name))""",
    # an input of the run is a step of the stage `input`; what is put to a model is `asked`, of all `calls`
    """CREATE TABLE stages (
        run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE, place INTEGER NOT NULL, step TEXT NOT NULL,
        stage TEXT NOT NULL, status TEXT NOT NULL, sha TEXT, seconds REAL, calls INTEGER NOT NULL,
        asked INTEGER NOT NULL, PRIMARY KEY (run, place)) WITHOUT ROWID""",
    "CREATE INDEX stages_sha ON stages (sha)",
    # each text once, however many branches share it
    "CREATE TABLE texts (id INTEGER PRIMARY KEY, sha TEXT NOT NULL UNIQUE)",
    "CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2')",
)
_SCHEMA = Schema(0x61676C68, 1, _TABLES)  # "aglh"


class PipelineHistory:
    """The history of a runs folder, from the index, as it is when the context is entered.

    A damaged index is set aside and made anew; one that cannot be kept lives in memory.
    """

    def __init__(self, path: Path, runs_dir: Path, store: Store, warn: Callable[[str], None]) -> None:
        """`warn` hears at most one sentence: that the index could not be used, and the runs themselves are read."""
        self._path, self._runs_dir, self._store, self._warn = path, runs_dir.absolute(), store, warn
        self._db: sqlite3.Connection | None = None
        self._file: Path | None = path  # None: in memory
        self._warned = False

    def refresh(self) -> None:
        """Read what changed since the last time, unless another process keeps the file for itself."""
        self._do(self._fill)

    def digests(self) -> list[Digest]:
        """All pipeline runs, oldest first."""
        return self._do(self._digests)

    def search(self, query: str, limit: int = 20) -> list[Hit]:
        return self._do(lambda db: search(db, str(self._runs_dir), query, limit))

    def __enter__(self) -> Self:
        self.refresh()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    # -- trouble ------------------------------------------------------------------------------------------------

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do it with the file; if that fails, with a new file; if that fails, in memory."""
        while True:
            try:
                if self._db is None:
                    self._db = open_index(self._file)
                    if work != self._fill:
                        self._fill(self._db)
                return work(self._db)
            except (sqlite3.Error, StorageError, ValueError, TypeError) as error:  # the last two: rows not ours
                self._recover(error)

    def _recover(self, error: Exception) -> None:
        """Choose where the index lives from here on."""
        self.close()
        if self._file is None:
            raise StorageError(
                f"The history cannot be read: {error}.", hint="Check that Python's SQLite includes FTS5."
            ) from error
        if _is_damage(error) and not self._warned:
            self._tell(f"The index {self._path} was damaged; rebuilding it from the runs.")
            try:
                set_aside(self._path)
            except OSError:
                self._file = None
        else:
            self._tell(f"The index {self._path} cannot be used ({error}); reading the runs instead.")
            self._file = None

    def _tell(self, sentence: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(sentence)

    # -- from the folders ---------------------------------------------------------------------------------------

    def _fill(self, db: sqlite3.Connection) -> None:
        try:
            self._read_news(db)
        except sqlite3.OperationalError as error:
            if not is_busy(error) or self._file is None:
                raise
            self._tell(f"The index {self._path} is busy; the newest runs may be missing.")

    def _read_news(self, db: sqlite3.Connection) -> None:
        folder = str(self._runs_dir)
        folder_stamps = stamps(self._runs_dir)
        indexed_stamps = dict(db.execute("SELECT name, stamp FROM runs WHERE folder = ?", (folder,)))
        changed = [name for name, stamp in folder_stamps.items() if indexed_stamps.get(name) != stamp]
        removed_runs = [(folder, name) for name in indexed_stamps if name not in folder_stamps]
        for start in range(0, len(changed), _AT_ONCE):
            with transaction(db):
                for name in changed[start : start + _AT_ONCE]:
                    if _stamp(db, folder, name) != folder_stamps[name]:  # another process may have been quicker
                        read(db, self._runs_dir, name, folder_stamps[name], self._store)
        if removed_runs:
            with transaction(db):
                db.executemany("DELETE FROM runs WHERE folder = ? AND name = ?", removed_runs)
                forget_lost_texts(db)

    # -- answers ------------------------------------------------------------------------------------------------

    def _digests(self, db: sqlite3.Connection) -> list[Digest]:
        where = (str(self._runs_dir), COMMAND)
        shares: dict[int, tuple[StageShare, ...]] = defaultdict(tuple)
        stages = db.execute(
            """SELECT run, stage, sum(stages.calls), sum(stages.asked) FROM stages JOIN runs ON runs.id = stages.run
            WHERE folder = ? AND command = ? AND stage != ? GROUP BY run, stage ORDER BY run, min(place)""",
            (*where, INPUT),
        )
        for run, *share in stages:
            shares[run] += (StageShare(*share),)
        runs = db.execute(
            """SELECT id, name, parent, status, created, seconds, config, excerpt, error FROM runs
            WHERE folder = ? AND command = ? ORDER BY created, born, name""",
            where,
        )
        return [
            Digest(name, parent, self._status(name, status), created, seconds, json.loads(config), shares[run], *texts)
            for run, name, parent, status, created, seconds, config, *texts in runs
        ]

    def _status(self, name: str, status: str) -> str:
        """As `RunRecord.status`: whether a run is still at work is not in its files, so it is asked now."""
        if status not in ("created", "running"):
            return status
        try:
            return RunRecord(self._runs_dir / name, read_manifest(self._runs_dir / name)).status
        except RunUnreadableError:  # removed this moment
            return "interrupted"


def _stamp(db: sqlite3.Connection, folder: str, name: str) -> str | None:
    row = db.execute("SELECT stamp FROM runs WHERE folder = ? AND name = ?", (folder, name)).fetchone()
    return row[0] if row else None


def _is_damage(error: Exception) -> bool:
    if isinstance(error, StorageError):
        return isinstance(error, ForeignFileError)
    return getattr(error, "sqlite_errorcode", 0) & 0xFF not in _IN_THE_WAY


def open_index(path: Path | None) -> sqlite3.Connection:
    """The index, made if there is none; in memory without a path. All it holds can be read again from the runs.

    Raises:
        StorageError: its folder cannot be made, or the file is another program's or version's.
        sqlite3.Error: it is damaged, locked, or cannot be written.
    """
    if path is not None:
        make_folder(path.parent)
    return _SCHEMA.open(path, _BUSY_SECONDS)


def set_aside(path: Path) -> None:
    """Rename a file that cannot be used, with its companions, so that a new one can be made. Nothing is deleted.

    Raises:
        OSError: it cannot be renamed.
    """
    for suffix in ("", "-wal", "-shm"):
        companion = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError):
            companion.replace(path.with_name(f"{path.name}.damaged{suffix}"))
