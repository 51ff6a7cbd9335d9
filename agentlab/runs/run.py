"""`OpenRun` owns one run folder: nothing else builds a path below the runs folder, and nothing else writes there."""

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import agentlab
from agentlab.errors import StorageError
from agentlab.files import open_to_write
from agentlab.runs.atomic import make_folder, storage_errors, sync_folder, write_bytes, write_json, write_text
from agentlab.runs.document import Report
from agentlab.runs.events import Event, EventSink
from agentlab.runs.folder import CREATING, Folder, check_name, sweep_creations, sweep_run
from agentlab.runs.journal import Journal
from agentlab.runs.lock import Lock
from agentlab.runs.manifest import (
    Manifest,
    Metric,
    RunFailure,
    RunTokens,
    Status,
    elapsed_seconds,
    git_state,
    read_manifest,
    versions,
)
from agentlab.runs.redact import Redactor
from agentlab.runs.report import csv_files, frame_report, html, markdown
from agentlab.stats.control import Control

LOCK = "lock"


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What is known about a run before it starts."""

    command: str
    config_yaml: str
    source_yaml: str
    config_hash: str
    seed: int
    argv: Sequence[str] = ()
    name: str | None = None  # of the folder; None makes one of time, label and a short id
    label: str | None = None  # None is the command


@dataclass(frozen=True, slots=True)
class RunEnvironment:
    """What comes in from outside: the clock, the secrets to mask, and who else wants to see the events."""

    clock: Callable[[], float] = time.time
    redactor: Redactor = field(default_factory=Redactor)
    sinks: Sequence[EventSink] = ()


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a capability reports when its work is done."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    control: Control | None = None
    tokens: RunTokens = field(default_factory=RunTokens)
    cost_usd: float | None = None


class OpenRun:
    """An open run folder, held by this process alone. Use as a context manager, so that it is let go of."""

    def __init__(self, path: Path, edge: RunEnvironment) -> None:
        """Open an existing folder. `create` and `resume` are the ways in."""
        self.path = path
        self.report: Report | None = None  # what the work has to show; written when the run completes or fails
        self.runs_dir_flag = ""  # what a command to type next needs to find the run
        self._edge = edge
        self._session_start = edge.clock()
        self._telling = threading.RLock()  # events may come from several threads; a sink may emit in turn
        self._lock = Lock(path / LOCK, run_id=path.name, now=self._session_start)
        try:
            sweep_run(path)
            manifest = read_manifest(path)
            self._journal = Journal(path / "events.jsonl")
            self.manifest = manifest.model_copy(update={"seconds": elapsed_seconds(manifest, self._journal.events)})
        except BaseException:
            self._lock.release()
            raise

    @classmethod
    def create(cls, runs_dir: Path, spec: RunSpec, edge: RunEnvironment) -> "OpenRun":
        """A new folder. It is built under a hidden name and renamed, so nobody ever sees half of one.

        Raises:
            UsageError: `spec.name` or `spec.label` is no file name, or the name is taken.
            StorageError: disk full, read-only or not ours.
        """
        now = datetime.fromtimestamp(edge.clock(), tz=UTC)
        run_id = spec.name or f"{now:%Y-%m-%dT%H-%M-%S}-{(spec.label or spec.command)}-{secrets.token_hex(3)}"
        check_name(runs_dir, run_id)
        target, building = runs_dir / run_id, runs_dir / f"{CREATING}{secrets.token_hex(4)}"
        manifest = Manifest(
            id=run_id,
            command=spec.command,
            argv=[edge.redactor.scrub(word) for word in spec.argv],
            config_hash=spec.config_hash,
            seed=spec.seed,
            versions=versions(),
            git=git_state(Path(agentlab.__file__).parent.parent),
            created=_iso(now),
        )
        make_folder(runs_dir)
        sweep_creations(runs_dir, edge.clock())
        try:
            with storage_errors(building):
                building.mkdir()
            write_json(building / "manifest.json", manifest.to_json())
            write_text(building / "config.yaml", spec.config_yaml)
            write_text(building / "source.yaml", edge.redactor.mask_file("source.yaml", spec.source_yaml))
            write_bytes(building / "events.jsonl", b"")
            with storage_errors(target):
                try:
                    building.rename(target)
                except OSError:
                    check_name(runs_dir, run_id)  # another process may have been faster
                    raise
                sync_folder(runs_dir)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        return cls(target, edge)

    @classmethod
    def resume(cls, path: Path, edge: RunEnvironment) -> "OpenRun":
        """Open a folder to go on with it; a torn last event is cut off."""
        return cls(path, edge)

    # -- identity -----------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def events(self) -> list[Event]:
        return self._journal.events

    # -- events -------------------------------------------------------------------------------------------------

    def emit(self, type: str, id: str = "", **data: Any) -> Event:  # noqa: A002 - the field's name in the file
        """Append one event, durably, and show it to the sinks."""
        scrubbed = self._edge.redactor.mask_tree(data)
        with self._telling:
            event = Event(seq=len(self._journal.events), t=self._edge.clock(), type=type, id=id, data=scrubbed)
            self._journal.append(event)
            self._show(event)
        return event

    def emit_once(self, type: str, id: str = "", **data: Any) -> None:  # noqa: A002 - the field's name in the file
        if not self.has(type, id):
            self.emit(type, id, **data)

    def has(self, type: str, id: str = "") -> bool:  # noqa: A002 - the field's name in the file
        return any(event.type == type and event.id == id for event in self.events)

    def stream(self, type: str, id: str = "", **data: Any) -> None:  # noqa: A002 - the field's name in the file
        """Append a passing detail (a token, a step) to `stream.jsonl`; may be lost, is never resumed from."""
        event = Event(seq=-1, t=self._edge.clock(), type=type, id=id, data=self._edge.redactor.mask_tree(data))
        with self._telling:
            with storage_errors(self.path), open_to_write(self.path / "stream.jsonl", "a") as file:
                file.write(event.to_json() + "\n")
            self._show(event)

    def _show(self, event: Event) -> None:
        for sink in self._edge.sinks:
            sink.emit(event)

    # -- files --------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Folder:
        return Folder(self.path, self._edge.redactor)

    def file(self, name: str) -> Path:
        return self.folder.file(name)

    def write_text(self, name: str, text: str) -> Path:
        return self.folder.write_text(name, text)

    def write_json(self, name: str, value: Any) -> Path:
        return self.folder.write_json(name, value)

    def write_bytes(self, name: str, data: bytes) -> Path:
        return self.folder.write_bytes(name, data)

    def mask(self, text: str) -> str:
        """A text that a run reads back, secrets masked."""
        return self._edge.redactor.mask(text)

    @property
    def redactor(self) -> Redactor:
        return self._edge.redactor

    def write_report(self, manifest: Manifest) -> None:
        """Write `report.md`, `report.html` and `tables/*.csv`, secrets masked.

        `manifest` is the run's, as it will be at its end.
        """
        report = self.report or Report(f"agentlab {manifest.command} failed", (), {}, ())
        title = self.redactor.scrub(report.title)
        blocks = self.redactor.scrub_blocks(
            frame_report(report, manifest, self.path / "config.yaml", self.runs_dir_flag)
        )
        self.write_bytes("report.md", markdown(title, blocks).encode())
        self.write_bytes("report.html", html(title, blocks, lambda name: self.file(name).read_text()).encode())
        tables = csv_files(blocks)
        for name, text in tables.items():
            self.write_bytes(f"tables/{name}", text.encode())
        for old in (self.path / "tables").glob("*.csv"):  # of a report before the run was extended
            if old.name not in tables:
                old.unlink()

    def log(self, text: str) -> None:
        stamp = _iso(datetime.fromtimestamp(self._edge.clock(), tz=UTC))
        with storage_errors(self.path), open_to_write(self.path / "log.txt", "a") as file:
            file.write(f"{stamp} {self._edge.redactor.scrub(text)}\n")

    # -- the life of a run --------------------------------------------------------------------------------------

    def derive(self, parent: str) -> None:
        if self.manifest.parent != parent:
            self._update(parent=parent)

    def start(self, device: dict[str, Any]) -> None:
        now = _iso(datetime.fromtimestamp(self._session_start, tz=UTC))
        is_resumed = self.manifest.started is not None
        self._update(
            status="running",
            device=device,
            started=self.manifest.started or now,
            ended=None,
            error=None,
            resumed=[*self.manifest.resumed, now] if is_resumed else self.manifest.resumed,
        )
        self.emit("run.resumed" if is_resumed else "run.started")

    def record_budget(self, config_yaml: str) -> None:
        """Record another budget, given on resume, in `config.yaml`. A complete run is no longer complete with it."""
        if self.manifest.status == "completed":  # first: a kill between the two writes must leave work to do
            self._update(status="interrupted")
        self.write_text("config.yaml", config_yaml)

    def record_figures(self, outcome: RunOutcome) -> None:
        """What the work came to so far: kept even if it ends in an error."""
        self._update(**_fields(outcome))

    def complete(self, outcome: RunOutcome) -> None:
        self._end("completed", **_fields(outcome))

    def interrupt(self) -> None:
        self._end("interrupted")

    def fail(self, kind: str, message: str, *, trace: str | None = None) -> None:
        """The work ended in an error; `trace` goes into the log. A disk that refuses this must not hide that error."""
        try:
            if trace:
                self.log(trace)
            self._end("failed", error=RunFailure(kind=kind, message=self._edge.redactor.scrub(message)))
        except StorageError:
            self.close()

    def _end(self, status: Status, **changes: Any) -> None:
        now = self._edge.clock()
        ended_at = _iso(datetime.fromtimestamp(now, tz=UTC))
        seconds = round(self.manifest.seconds + max(0.0, now - self._session_start), 3)
        changes |= {"status": status, "ended": ended_at, "seconds": seconds}
        if status != "interrupted":
            self.write_report(self.manifest.model_copy(update=changes))
        self._session_start = now
        self.emit(f"run.{status}")
        self._update(**changes)

    def _update(self, **changes: Any) -> None:
        self.manifest = self.manifest.model_copy(update=changes)
        write_json(self.path / "manifest.json", self.manifest.to_json())

    def close(self) -> None:
        self._journal.close()
        self._lock.release()

    def __enter__(self) -> "OpenRun":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _fields(outcome: RunOutcome) -> dict[str, Any]:
    return {
        "metrics": outcome.metrics,
        "control": outcome.control,
        "tokens": outcome.tokens,
        "cost_usd": outcome.cost_usd,
    }


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
