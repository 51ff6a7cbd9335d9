"""SQLite as files of the workspace use it: whole transactions, and other processes that may be in the way."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agentlab.errors import StorageError

_PAUSE_SECONDS = 0.005


class ForeignFileError(StorageError):
    """A database of another program, or of another version of ours."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of a file."""

    application: int  # four letters as a number, where SQLite keeps whose file it is
    version: int  # at least 1
    statements: Sequence[str]  # what makes the tables of an empty file

    def open(self, path: Path | None, busy_seconds: float) -> sqlite3.Connection:
        """The file in WAL mode, so that readers never wait, made if there is none; in memory without a path.

        Any thread may use it, one at a time. A power cut may lose its newest transactions, a killed process none.
        `path`: in a folder that exists; `busy_seconds`: how long a write waits for another process's.

        Raises:
            ForeignFileError: it is another program's file or of another version, and stays as it was.
            sqlite3.Error: it is damaged, locked, or cannot be written.
        """
        db = sqlite3.connect(path or ":memory:", timeout=busy_seconds, isolation_level=None, check_same_thread=False)
        try:
            empty = self.is_empty(db, path)  # before anything is changed
            _in_wal(db, busy_seconds)
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA foreign_keys = ON")
            if empty:
                with transaction(db):
                    if self.is_empty(db, path):  # another process may have been quicker
                        for statement in self.statements:
                            db.execute(statement)
                        db.execute(f"PRAGMA application_id = {self.application}")
                        db.execute(f"PRAGMA user_version = {self.version}")
        except BaseException:
            db.close()
            raise
        return db

    def is_empty(self, db: sqlite3.Connection, path: Path | None) -> bool:
        """Whether its tables have still to be made. Errors as of `open`."""
        # one statement sees one moment of the file: another process may be making the tables
        application, version, tables = db.execute(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
            " FROM pragma_application_id, pragma_user_version"
        ).fetchone()
        if application == version == tables == 0:
            return True
        if application != self.application:
            raise ForeignFileError(f"{path} belongs to another program.", hint="Move it away.")
        if version != self.version:
            raise ForeignFileError(
                f"{path} was written by a newer agentlab (version {version}; this one reads {self.version}).",
                hint="Update agentlab, or move the file away.",
            )
        return False


def _in_wal(db: sqlite3.Connection, busy_seconds: float) -> None:
    """Turn the file to WAL mode. While another process does, the file is locked, and SQLite does not wait."""
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing. The write lock is taken first, so what is read inside is what other processes left."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has ended it already
            db.execute("ROLLBACK")
        raise


def is_busy(error: BaseException) -> bool:
    """Whether another process was in the way, which may pass."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, sqlite3.OperationalError) and code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
