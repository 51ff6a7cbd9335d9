"""Finding run folders: list, look up by name, remove."""

import json
import secrets
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TypeVar

from agentlab.errors import RunLockedError, RunUnreadableError, UnknownNameError, UsageError
from agentlab.files import open_file
from agentlab.runs.atomic import is_temporary, read_text, storage_errors
from agentlab.runs.document import AnswerDocument
from agentlab.runs.events import Event
from agentlab.runs.folder import is_run_name
from agentlab.runs.journal import read_events
from agentlab.runs.lock import is_held
from agentlab.runs.manifest import Manifest, Status, elapsed_seconds, read_manifest
from agentlab.runs.run import LOCK

_MAX_TEXT, _MAX_PROOF = 64 << 20, 4 << 10
_NOT_OURS = "It is a link, was renamed, or is not a run. If you are sure you do not need it, delete it manually."


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run folder as a reader sees it."""

    path: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def active(self) -> bool:
        return is_held(self.path / LOCK)

    @property
    def status(self) -> Status:
        """As in the manifest, except that a run which claims to be running without a process was killed."""
        status = self.manifest.status
        return "interrupted" if status in ("running", "created") and not self.active else status

    @property
    def seconds(self) -> float:
        """Wall time of all its sessions as far as it is known: see `elapsed_seconds`."""
        return elapsed_seconds(self.manifest, self.known_events() if self.manifest.status == "running" else ())

    def events(self) -> list[Event]:
        return read_events(self.path / "events.jsonl")

    def known_events(self) -> list[Event]:
        """The same for a view, which shows what it can: nothing has happened if the file cannot be read."""
        try:
            return self.events()
        except RunUnreadableError:
            return []

    def text(self, name: str) -> str:
        """A text file of the run. Raises RunUnreadableError if it is absent, too large, or not text."""
        try:
            return read_text(self.path / name, _MAX_TEXT)
        except OSError as error:
            raise RunUnreadableError(f"The run {self.id} has no {name}.", hint="Was it interrupted early?") from error
        except ValueError as error:
            raise RunUnreadableError(f"{self.path / name} is damaged: {error}.") from error


@dataclass(frozen=True, slots=True)
class Listing:
    """All runs of a folder, oldest first, and the folders that could not be read, with the reason."""

    runs: Sequence[RunRecord]
    unreadable: Sequence[tuple[str, str]]


def list_runs(runs_dir: Path) -> Listing:
    """Every run folder below `runs_dir`; a folder without any is empty, not an error."""
    if not runs_dir.is_dir():
        return Listing((), ())
    runs: list[RunRecord] = []
    unreadable: list[tuple[str, str]] = []
    for path in runs_dir.iterdir():
        if path.name.startswith(".") or not path.is_dir():
            continue
        try:
            runs.append(RunRecord(path, read_manifest(path)))
        except RunUnreadableError as error:
            unreadable.append((path.name, error.message))
    runs.sort(key=lambda run: (run.manifest.created, _birth(run.path)))
    return Listing(runs, sorted(unreadable))


def _birth(path: Path) -> int:
    """Tells runs of the same second apart: the event file's folder entry is written once, at creation."""
    return (path / "source.yaml").stat().st_mtime_ns if (path / "source.yaml").exists() else 0


def find(runs_dir: Path, name: str, command: str | None = None) -> RunRecord:
    """The run with this folder name, unique prefix, hex suffix, or `last`, or `last:COMMAND`.

    `command`: whose run it has to be; `last` then means the last one of this command.

    Raises:
        UnknownNameError: none fits.
        UsageError: several fit, or it is another command's.
        RunUnreadableError: the folder that fits is damaged.
    """
    listing = list_runs(runs_dir)
    record = _last(runs_dir, listing, name, command) if _is_last(name) else _find_named(runs_dir, listing, name)
    if command and record.manifest.command != command:
        raise UsageError(
            f"The run {record.id} belongs to `{record.manifest.command}`, not to `{command}`.",
            hint=f"`last:{command}` selects the latest run of {command}.",
        )
    return record


def _last(runs_dir: Path, listing: Listing, name: str, command: str | None) -> RunRecord:
    wanted_command = name.partition(":")[2] or command
    fitting = [run for run in listing.runs if not wanted_command or run.manifest.command == wanted_command]
    if not fitting:
        hint = f"There is no {wanted_command + ' ' if wanted_command else ''}run in {runs_dir}."
        raise UnknownNameError("run", name, [run.id for run in listing.runs], hint=hint)
    return fitting[-1]


def _find_named(runs_dir: Path, listing: Listing, name: str) -> RunRecord:
    broken = dict(listing.unreadable)
    chosen = match(name, [*(run.id for run in listing.runs), *broken])
    if chosen in broken:
        line = f"agentlab runs rm {quote(chosen)} --runs-dir {quote(str(runs_dir))}"
        hint = f"Remove it with `{line}`." if is_run(runs_dir / chosen) else "Is this a run folder?"
        raise RunUnreadableError(broken[chosen], hint=hint)
    return next(run for run in listing.runs if run.id == chosen)


def _is_last(name: str) -> bool:
    return name == "last" or name.startswith("last:")


def match(name: str, names: Sequence[str]) -> str:
    """The one of `names` that `name` means: itself, a unique prefix, or a hex suffix of six digits. Pure."""
    if name in names:
        return name
    fitting = [n for n in names if n.startswith(name)] or [n for n in names if n.rpartition("-")[2] == name]
    if not name or not fitting:
        raise UnknownNameError("run", name, list(names), hint="See `agentlab runs list`.")
    if len(fitting) > 1:
        raise UsageError(f"{name!r} matches {len(fitting)} runs.", hint=f"Use one of: {', '.join(fitting[:8])}.")
    return fitting[0]


def require_whole_name(runs_dir: Path, name: str) -> str:
    """The name itself, if a run folder bears it, be the run readable or not: for what removes or changes a run.

    There a prefix is a trap: the same line, run twice, would mean `exp1` first and `exp10` then.

    Raises:
        UnknownNameError: no run folder is called that.
        UsageError: it is short for one, or for several.
    """
    listing = list_runs(runs_dir)
    names = [*(run.id for run in listing.runs), *(broken for broken, _ in listing.unreadable)]
    if name in names:
        return name
    full_name = find(runs_dir, name).id if _is_last(name) else match(name, names)
    raise UsageError(
        f"{name!r} is short for {full_name}; only the full name is accepted here.", hint=f"Use {full_name}."
    )


def find_to_resume(runs_dir: Path, name: str, command: str | None = None) -> RunRecord:
    """The run to go on with: by its whole name, or `last` (of `command`, if one is given), or `last:COMMAND`.

    Errors as of `require_whole_name` and `find`.
    """
    return find(runs_dir, name, command) if _is_last(name) else find(runs_dir, require_whole_name(runs_dir, name))


def is_run(folder: Path) -> bool:
    """Whether a folder proves that it is the run whose name it bears: nothing else is ever deleted.

    The proof is its manifest; where that cannot be read, its lock, which names the run, with its first event. A link
    is no run, nor is a folder that was renamed.
    """
    if not is_run_name(folder.name) or folder.is_symlink() or folder.parent.is_symlink() or not folder.is_dir():
        return False
    try:
        return read_manifest(folder).id == folder.name
    except RunUnreadableError:
        pass
    try:
        owner = json.loads(read_text(folder / LOCK, _MAX_PROOF))
        with open_file(folder / "events.jsonl") as events:
            first = Event.from_json(events.readline(_MAX_PROOF).decode())
        return bool(owner["run"] == folder.name and first.type.startswith("run."))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def check_removable(runs_dir: Path, *run_ids: str) -> None:
    """See that these folders may be deleted; nothing is written.

    Raises:
        RunUnreadableError: one of them is not proven to be a run of that name; see `is_run`.
        RunLockedError: a process works on one of them.
    """
    for run_id in run_ids:
        folder = runs_dir / run_id
        if runs_dir.is_symlink():
            raise RunUnreadableError(
                f"{runs_dir} is a link; runs are not deleted through links.",
                hint=f"Pass the folder itself: --runs-dir {quote(str(runs_dir.resolve()))}",
            )
        if not is_run(folder):
            raise RunUnreadableError(
                f"{folder} was not deleted: nothing in it proves that it is the run {run_id}.", hint=_NOT_OURS
            )
        if is_held(folder / LOCK):
            raise RunLockedError(f"The run {run_id} is in use by another process.", hint="Stop it first.")


def remove(runs_dir: Path, *run_ids: str) -> None:
    """Delete run folders, also damaged ones: all of them, or none when one must stay.

    Errors as of `check_removable`; StorageError if one cannot be deleted.
    """
    check_removable(runs_dir, *run_ids)
    for run_id in run_ids:
        with storage_errors(runs_dir / run_id):
            shutil.rmtree(runs_dir / run_id)


D = TypeVar("D", bound=AnswerDocument)


def read_result(record: RunRecord, model: type[D]) -> D:
    """What the run found. Raises RunUnreadableError if it is absent or of another shape."""
    try:
        return model.model_validate(json.loads(record.text("result.json")))
    except (ValueError, RecursionError) as error:
        raise RunUnreadableError(
            f"{record.path / 'result.json'} is damaged.", hint=f"Read the report instead: {record.path / 'report.md'}."
        ) from error


_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip file can hold
_BLOCK = 1 << 20


def export(record: RunRecord, target: Path) -> Path:
    """Pack every file of the run below a folder of its name.

    Raises:
        UsageError: the target exists.
        StorageError: it cannot be written.
    """
    if target.exists():
        raise UsageError(f"{target} already exists.", hint="Choose another --out.")
    temporary = target.with_name(f".{target.name[:64]}.{secrets.token_hex(4)}.tmp")
    files = sorted(path for path in record.path.rglob("*") if _belongs(path))
    with storage_errors(target):
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
                for path in files:
                    entry = zipfile.ZipInfo(f"{record.id}/{path.relative_to(record.path).as_posix()}", _EPOCH)
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    entry.external_attr = 0o644 << 16
                    with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as packed:
                        shutil.copyfileobj(source, packed, _BLOCK)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return target


def _belongs(path: Path) -> bool:
    """Not the lock, not what a kill left half-written, and no link, which may lead anywhere on this machine."""
    return path.is_file() and not path.is_symlink() and path.name != LOCK and not is_temporary(path)
