"""The file of the index: SQLite in WAL mode with full-text search. All it holds can be read again from the runs."""

import contextlib
import sqlite3
from pathlib import Path

from agentlab.errors import StorageError
from agentlab.runs.atomic import make_folder
from agentlab.runs.sqlite import transaction

_APPLICATION = 0x61676C68  # "aglh", where SQLite keeps whose file it is
_VERSION = 1
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


class ForeignFileError(StorageError):
    """A database, but not this one, or of another version."""


def open_index(path: Path | None) -> sqlite3.Connection:
    """The index in a file, which is made if there is none; in memory without a path.

    Raises:
        StorageError: its folder cannot be made, or the file is another program's or version's.
        sqlite3.Error: it is damaged, locked, or cannot be written.
    """
    if path is not None:
        make_folder(path.parent)
    db = sqlite3.connect(path or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        fresh = _is_fresh(db, path)  # before anything is changed
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")  # what a power cut loses is read again
        db.execute("PRAGMA foreign_keys = ON")
        if fresh:
            with transaction(db):
                if _is_fresh(db, path):  # another process may have been quicker
                    for statement in _TABLES:
                        db.execute(statement)
                    db.execute(f"PRAGMA application_id = {_APPLICATION}")
                    db.execute(f"PRAGMA user_version = {_VERSION}")
    except BaseException:
        db.close()
        raise
    return db


def _is_fresh(db: sqlite3.Connection, path: Path | None) -> bool:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == application == tables == 0:
        return True
    if (application, version) != (_APPLICATION, _VERSION):
        raise ForeignFileError(f"{path} is no index of this version")
    return False


def set_aside(path: Path) -> None:
    """Rename a file that cannot be used, with its companions, so that a new one can be made. Nothing is deleted.

    Raises:
        OSError: it cannot be renamed.
    """
    for suffix in ("", "-wal", "-shm"):
        companion = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError):
            companion.replace(path.with_name(f"{path.name}.damaged{suffix}"))
