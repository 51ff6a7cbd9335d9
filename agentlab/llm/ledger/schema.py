"""The ledger's file: SQLite in WAL mode, so that readers never wait and several processes may write in turn."""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from agentlab.errors import StorageError
from agentlab.runs.atomic import storage_errors
from agentlab.runs.sqlite import Schema, is_busy, transaction

_BUSY_SECONDS = 1.0  # how long a write waits for another process's
_READ_SECONDS = 0.05  # readers only ever wait while the file is being made or repaired
_DAY = 86_400.0
_CALLS = 1_000_000  # single calls that are kept, those of the last two days aside
_ARM_DAYS = 365  # an arm that nobody touched for so long has no weight left

_TABLES = (
    """CREATE TABLE calls (
        id INTEGER PRIMARY KEY, at REAL NOT NULL, task TEXT NOT NULL, model TEXT NOT NULL, provider TEXT NOT NULL,
        error TEXT, input_tokens INTEGER, output_tokens INTEGER, cost_usd REAL, first REAL, total REAL NOT NULL,
        run TEXT NOT NULL)""",
    "CREATE INDEX calls_at ON calls (at, cost_usd)",
    # counters of all time, so that deleting old calls loses none; last_* are those of the newest answer
    """CREATE TABLE models (
        model TEXT PRIMARY KEY, provider TEXT NOT NULL, input_tokens INTEGER, output_tokens INTEGER, cost_usd REAL,
        unpriced INTEGER NOT NULL, last_at REAL, last_seconds REAL) WITHOUT ROWID""",
    # an empty error: it answered
    """CREATE TABLE outcomes (
        model TEXT NOT NULL, error TEXT NOT NULL, calls INTEGER NOT NULL, PRIMARY KEY (model, error)) WITHOUT ROWID""",
    """CREATE TABLE durations (
        model TEXT NOT NULL, phase TEXT NOT NULL, bucket INTEGER NOT NULL, calls INTEGER NOT NULL,
        PRIMARY KEY (model, phase, bucket)) WITHOUT ROWID""",
    """CREATE TABLE arms (
        task TEXT NOT NULL, model TEXT NOT NULL, successes REAL NOT NULL, failures REAL NOT NULL,
        quality_sum REAL NOT NULL, quality_count REAL NOT NULL, first_count REAL NOT NULL, first_mean REAL NOT NULL,
        first_m2 REAL NOT NULL, rate_count REAL NOT NULL, rate_mean REAL NOT NULL, rate_m2 REAL NOT NULL,
        cost_sum REAL NOT NULL, cost_tokens REAL NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (task, model)) WITHOUT ROWID""",
    "CREATE TABLE answers (key TEXT PRIMARY KEY, at REAL NOT NULL, bytes INTEGER NOT NULL, body BLOB NOT NULL)",
    "CREATE INDEX answers_at ON answers (at, bytes)",
)
SCHEMA = Schema(0x61676C62, 1, _TABLES)  # "aglb"


def open_database(path: Path, keep_days: int, now: float) -> sqlite3.Connection:
    """The file, made if there is none, less what is older than `keep_days` at `now` (UNIX seconds).

    Raises:
        StorageError: its folder cannot be made or written; it is another program's file or a newer agentlab's.
        sqlite3.Error: it is broken, or another process holds it.
    """
    with storage_errors(path):
        _create(path)
    db = SCHEMA.open(path, _BUSY_SECONDS)
    try:
        with transaction(db):
            _prune(db, keep_days, now)
    except BaseException:
        db.close()
        raise
    return db


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, for one thread at a time. Raises sqlite3.Error if it cannot be opened."""
    uri = f"{path.resolve().as_uri()}?mode=rw"  # `ro` would leave companion files behind when it is the last to close
    db = sqlite3.connect(uri, uri=True, timeout=_READ_SECONDS, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA query_only = ON")
    return db


def explain_error(error: Exception, path: Path) -> str:
    """Why the file cannot be used, and what to do about it."""
    if isinstance(error, StorageError):
        return " ".join(filter(None, (error.message, error.hint)))
    if is_busy(error):
        return f"{path} is locked by another process; find and stop the one that has it open."
    code = getattr(error, "sqlite_errorcode", None)
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT) or isinstance(error, ValueError | TypeError):
        return f"{path} is damaged ({error}). Move it away; a new one is created automatically."
    return f"{path} cannot be used: {error}."


def _create(path: Path) -> None:
    """For its owner's eyes only; SQLite gives its companion files the same mode.

    A file that exists must not be opened and closed here: that would drop the locks of a connection in this process.
    """
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        with suppress(FileExistsError):  # another process was quicker
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _prune(db: sqlite3.Connection, keep_days: int, now: float) -> None:
    oldest = now - keep_days * _DAY
    db.execute("DELETE FROM calls WHERE at < ?", (oldest,))
    db.execute("DELETE FROM calls WHERE id <= (SELECT max(id) FROM calls) - ? AND at < ?", (_CALLS, now - 2 * _DAY))
    db.execute("DELETE FROM answers WHERE at < ?", (oldest,))
    db.execute("DELETE FROM arms WHERE at < ?", (now - _ARM_DAYS * _DAY,))
