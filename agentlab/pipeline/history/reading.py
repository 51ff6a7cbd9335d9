"""From run folders to rows of the index: which changed since they were last read, and what stands in them."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab.errors import RunUnreadableError
from agentlab.pipeline.answer import sha_of
from agentlab.pipeline.branches.digest import config_of, inputs_of, shorten_value
from agentlab.pipeline.branches.trace import stage_of, step_of, trace
from agentlab.pipeline.graph import INPUT
from agentlab.pipeline.store import Store
from agentlab.pipeline.text_store import RunTexts
from agentlab.runs.manifest import read_manifest
from agentlab.runs.store import RunRecord

COMMAND = "pipeline"
_WATCHED = ("manifest.json", "events.jsonl", "config.yaml")  # a run writes one of these whenever it has news
_MOST_EVENT_BYTES = 256 << 20  # a run with more is listed, but its stages are not
_MOST_STEPS = 20_000  # of one run, inputs aside
_MOST_INPUTS = 20_000
_MOST_CHARS = 65_536  # of a text that is searched
_EXCERPT = 200


@dataclass(frozen=True, slots=True)
class IndexRow:
    """A step or an input. `text` is set for inputs only: those of stages lie in the run."""

    step: str
    stage: str
    status: str
    sha: str | None
    seconds: float | None = None
    calls: int = 0
    asked: int = 0
    text: str | None = None


def stamps(runs_dir: Path) -> dict[str, str]:
    """The run folders of `runs_dir`, each with a text that changes whenever the run does."""
    if not runs_dir.is_dir():
        return {}
    return {path.name: _stamp(path) for path in runs_dir.iterdir() if not path.name.startswith(".") and path.is_dir()}


def _stamp(folder: Path) -> str:
    return " ".join(_state(folder / name) for name in _WATCHED)


def _state(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:
        return "-"
    return f"{stat.st_ino}.{stat.st_mtime_ns}.{stat.st_size}"


def read(db: sqlite3.Connection, folder: Path, name: str, stamp: str, store: Store) -> None:
    """Replace what the index knows of a run by what its folder says. A folder that is no readable run gets a stamp."""
    db.execute("DELETE FROM runs WHERE folder = ? AND name = ?", (str(folder), name))
    try:
        record = RunRecord(folder / name, read_manifest(folder / name))
    except RunUnreadableError:
        _insert(db, folder, name, stamp, command="")
        return
    manifest = record.manifest
    if manifest.command != COMMAND:
        _insert(db, folder, name, stamp, command=manifest.command)
        return
    config = config_of(record)
    inputs = inputs_of(record, config)
    run = _insert(
        db,
        folder,
        name,
        stamp,
        command=COMMAND,
        status=manifest.status,
        created=manifest.created,
        born=_born(record.path),
        seconds=record.seconds,
        parent=manifest.parent,
        error=manifest.error.message if manifest.error else None,
        excerpt=shorten_value(next(iter(inputs.values()), ""), _EXCERPT),
        config=json.dumps(config),
    )
    texts = RunTexts(record.path, store)
    for position, row in enumerate((*_inputs(inputs), *_steps(record))):
        values = (run, position, row.step, row.stage, row.status, row.sha, row.seconds, row.calls, row.asked)
        db.execute("INSERT INTO stages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        _learn(db, row, texts)


def forget_lost_texts(db: sqlite3.Connection) -> None:
    """Remove the texts that no run names any more."""
    lost_texts_query = "SELECT id FROM texts WHERE sha NOT IN (SELECT sha FROM stages WHERE sha IS NOT NULL)"
    db.execute(f"DELETE FROM words WHERE rowid IN ({lost_texts_query})")  # noqa: S608 - a constant
    db.execute(f"DELETE FROM texts WHERE id IN ({lost_texts_query})")  # noqa: S608 - a constant


def _insert(db: sqlite3.Connection, folder: Path, name: str, stamp: str, **fields: Any) -> int:
    row = {"status": "", "created": "", "born": 0, "seconds": 0.0, "parent": None, "error": None, "excerpt": ""}
    row |= {"config": "{}", "folder": str(folder), "name": name, "stamp": stamp, **fields}
    values = {key: _clean(value) if isinstance(value, str) else value for key, value in row.items()}
    columns, marks = ", ".join(values), ", ".join(f":{key}" for key in values)
    return db.execute(f"INSERT INTO runs ({columns}) VALUES ({marks})", values).lastrowid or 0  # noqa: S608 - our names


def _inputs(inputs: dict[str, str]) -> Iterator[IndexRow]:
    for item, text in list(inputs.items())[:_MOST_INPUTS]:
        yield IndexRow(f"{item}:{INPUT}" if item else INPUT, INPUT, "done", sha_of(text), text=text)


def _steps(record: RunRecord) -> Iterator[IndexRow]:
    try:
        if (record.path / "events.jsonl").stat().st_size > _MOST_EVENT_BYTES:
            return
        run_trace = trace(record.events())
    except (OSError, RunUnreadableError):
        return
    calls = Counter(step_of(call) for call in run_trace.calls)
    asked_counts = Counter(step_of(call.id) for call in run_trace.calls.values() if call.source == "model")
    for step in list(run_trace.steps.values())[:_MOST_STEPS]:
        yield IndexRow(
            step.id, stage_of(step.id), step.status, step.sha, step.seconds, calls[step.id], asked_counts[step.id]
        )


def _learn(db: sqlite3.Connection, row: IndexRow, texts: RunTexts) -> None:
    """Make a text searchable, unless it is so already."""
    if row.sha is None or db.execute("SELECT 1 FROM texts WHERE sha = ?", (row.sha,)).fetchone():
        return
    text = texts.text(row.sha) if row.text is None else row.text
    if text:
        id_ = db.execute("INSERT INTO texts (sha) VALUES (?)", (row.sha,)).lastrowid
        db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (id_, _clean(text[:_MOST_CHARS])))


def _clean(text: str) -> str:
    """What SQLite can hold: half a character becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _born(folder: Path) -> int:
    """Tells runs of the same second apart: this file is written once, at creation."""
    try:
        return (folder / "source.yaml").stat().st_mtime_ns
    except OSError:
        return 0
