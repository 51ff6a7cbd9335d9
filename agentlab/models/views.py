"""What `agentlab models` answers."""

from collections.abc import Sequence

from agentlab.models.catalogue import CATALOGUE, CatalogueRow
from agentlab.models.store import ModelEntry
from agentlab.runs.document import Block, Code, Document, Table


class ModelLine(Document):
    """A row of the list. `path` is None for a known model that is not here."""

    name: str
    kind: str
    bytes: int
    place: str
    licence: str | None
    path: str | None


class ModelList(Document):
    """What is here, then what could be pulled."""

    models: list[ModelLine]

    @classmethod
    def of(cls, entries: Sequence[ModelEntry]) -> "ModelList":
        """Entries of the store, and the catalogue's rows that are not among them."""
        here = {entry.name for entry in entries}
        rows = {row.name: row for row in CATALOGUE}
        absent = [_absent(row) for row in CATALOGUE if row.name not in here]
        return cls(models=[*(_present(entry, rows.get(entry.name)) for entry in entries), *absent])

    def blocks(self) -> list[Block]:
        """A table."""
        rows = [
            (line.name, line.kind, f"{line.bytes / 1e6:.0f} MB", line.place, line.licence or "–", line.path or "–")
            for line in self.models
        ]
        return [Table(("model", "kind", "size", "place", "licence", "path"), rows)]


def _present(entry: ModelEntry, row: CatalogueRow | None) -> ModelLine:
    return ModelLine(
        name=entry.name,
        kind=entry.kind,
        bytes=entry.bytes,
        place=entry.place,
        licence=row.licence if row else None,
        path=str(entry.path),
    )


def _absent(row: CatalogueRow) -> ModelLine:
    return ModelLine(name=row.name, kind="gguf", bytes=row.bytes, place="can be pulled", licence=row.licence, path=None)


class PulledModel(Document):
    """A model that is in the workspace now, and where it came from: `workspace`, `cache`, or the name of a source."""

    name: str
    path: str
    origin: str

    def blocks(self) -> list[Block]:
        """Just the path."""
        return [Code(self.path)]


class ModelPath(Document):
    """One model's file or folder: one line, easy to pipe."""

    name: str
    path: str

    def blocks(self) -> list[Block]:
        """Just the path."""
        return [Code(self.path)]
