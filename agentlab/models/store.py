"""Which models lie on this machine, and which file a name means.

The workspace's `models/` comes first, then the user cache. A model is a GGUF file or a checkpoint folder (one with a
`config.json`). Its name is the catalogue's, or else the file's or folder's own.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agentlab.config.workspace import Workspace
from agentlab.errors import MissingFileError, StorageError, UnknownNameError, UsageError
from agentlab.models import catalogue
from agentlab.models.catalogue import CATALOGUE, CatalogueRow
from agentlab.runs.atomic import delete, read_text, storage_errors
from agentlab.runs.document import AnswerDocument, Block, Code, Table

Kind = Literal["gguf", "checkpoint"]
_MAX_CONFIG = 4 << 20
_PULL = f"`agentlab models pull {catalogue.EMBEDDED}` fetches the embedded model; `agentlab models list` shows all."


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model that is there."""

    name: str
    kind: Kind
    path: Path
    bytes: int
    place: Literal["workspace", "cache"]


def list_models(workspace: Workspace) -> list[StoredModel]:
    """Every model of the workspace and the cache, by name; a name in both places is listed twice."""
    entries = [_entry(path, "workspace") for path in _models_in(workspace.models)]
    entries += [_entry(path, "cache") for path in _models_in(cached_models(workspace))]
    return sorted(entries, key=lambda entry: (entry.name, entry.place != "workspace"))


def find(name: str, workspace: Workspace) -> Path:
    """The path that a name in a config or on the command line means.

    `name`: a catalogue name, a file or folder name below the models folders (a GGUF without its ending, too), or a path
    with a slash, relative ones from the workspace.

    Raises:
        MissingFileError: a path to nothing, or a catalogued model that was not pulled yet.
        UnknownNameError: nothing bears that name.
    """
    if "/" in name or "\\" in name or name.startswith("~"):
        path = workspace.resolve(name)
        if path.name == "..":  # results are kept under a model's name
            path = path.resolve()
        if not path.exists():
            raise MissingFileError(f"There is no model at {path}.", hint=_PULL)
        return path
    row = catalogue.by_name(name) or catalogue.by_file(name)
    file_names = (row.file,) if row else (name, f"{name}.gguf")
    for folder in (workspace.models, cached_models(workspace)):
        for path in _models_in(folder):
            if path.name in file_names:
                return path
    if row:
        raise MissingFileError(
            f"The model {name} is not on this machine: {row.file} is neither in {workspace.models} nor in "
            f"{cached_models(workspace)}.",
            hint=f"Get it with `agentlab models pull {row.name}`.",
        )
    known_names = sorted({*catalogue.names(), *(entry.name for entry in list_models(workspace))})
    raise UnknownNameError("model", name, known_names, hint=_PULL)


def cached_models(workspace: Workspace) -> Path:
    """The folder of models that workspaces share."""
    return workspace.cache / "models"


def remove(name: str, workspace: Workspace) -> StoredModel:
    """Delete a model of the workspace; the cache and anything outside `models/` are never touched.

    Raises:
        UnknownNameError: the workspace has no model of that name.
        UsageError: a folder bears the name that does not prove to be a checkpoint.
        StorageError: it cannot be deleted.
    """
    entries = {entry.name: entry for entry in list_models(workspace) if entry.place == "workspace"}
    by_file = {entry.path.name: entry for entry in entries.values()}
    entry = entries.get(name) or by_file.get(name)
    if entry is None:  # also for `../x`: only names that were found inside the folder can be removed
        raise UnknownNameError("model in the workspace", name, sorted(entries))
    reason = None if entry.path.is_symlink() or entry.kind != "checkpoint" else _why_no_checkpoint(entry.path)
    if reason is not None:
        hint = "If you are sure you do not need the folder, delete it manually."
        raise UsageError(f"{entry.path} was not deleted: {reason}.", hint=hint)
    try:
        with storage_errors(entry.path):
            delete(entry.path)
    except StorageError as error:
        message = error.message.replace("Cannot write", "Cannot delete", 1)
        raise StorageError(message, hint="Check the permissions of the models folder.") from error
    return entry


def _why_no_checkpoint(folder: Path) -> str | None:
    try:  # many a program calls its settings `config.json`
        names_model = isinstance(json.loads(read_text(folder / "config.json", _MAX_CONFIG))["model_type"], str)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        names_model = False
    if not names_model:
        return "its config.json does not set model_type"
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return f"it contains the folder {folders[0]}, but a checkpoint contains only files" if folders else None


def stem_of(model: str) -> str:
    """The catalogue's name for a model given by name, file name or path, or else its file name without the ending."""
    file = Path(model).name
    row = catalogue.by_file(file)
    return row.name if row else file.removesuffix(".gguf")


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(part.stat().st_size for part in path.rglob("*") if part.is_file())


def _models_in(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        is_file = path.suffix == ".gguf" and path.is_file()
        if not path.name.startswith(".") and (is_file or (path / "config.json").is_file()):
            yield path


def _entry(path: Path, place: Literal["workspace", "cache"]) -> StoredModel:
    kind: Kind = "gguf" if path.is_file() else "checkpoint"
    name = stem_of(path.name) if kind == "gguf" else path.name
    return StoredModel(name=name, kind=kind, path=path, bytes=size_of(path), place=place)


class ModelListLine(AnswerDocument):
    """A row of `agentlab models list`. `path` is None for a known model that is not here."""

    name: str
    kind: str
    bytes: int
    place: str
    licence: str | None
    path: str | None


class ModelList(AnswerDocument):
    """What is here, then what could be pulled."""

    models: list[ModelListLine]

    @classmethod
    def of(cls, entries: Sequence[StoredModel]) -> "ModelList":
        present_names = {entry.name for entry in entries}
        rows = {row.name: row for row in CATALOGUE}
        absent = [_absent(row) for row in CATALOGUE if row.name not in present_names]
        return cls(models=[*(_present(entry, rows.get(entry.name)) for entry in entries), *absent])

    def blocks(self) -> list[Block]:
        rows = [
            (line.name, line.kind, f"{line.bytes / 1e6:.0f} MB", line.place, line.licence or "–", line.path or "–")
            for line in self.models
        ]
        return [Table(("model", "kind", "size", "place", "licence", "path"), rows)]


def _present(entry: StoredModel, row: CatalogueRow | None) -> ModelListLine:
    return ModelListLine(
        name=entry.name,
        kind=entry.kind,
        bytes=entry.bytes,
        place=entry.place,
        licence=row.licence if row else None,
        path=str(entry.path),
    )


def _absent(row: CatalogueRow) -> ModelListLine:
    return ModelListLine(
        name=row.name, kind="gguf", bytes=row.bytes, place="can be pulled", licence=row.licence, path=None
    )


class ModelPath(AnswerDocument):
    """One model's file or folder: one line, easy to pipe."""

    name: str
    path: str

    def blocks(self) -> list[Block]:
        return [Code(self.path)]


class PulledModel(ModelPath):
    """A model that is in the workspace now, and where it came from: `workspace`, `cache`, or the name of a source."""

    origin: str
