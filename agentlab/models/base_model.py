"""The checkpoint that is trained on: a folder as it is, or a GGUF file imported once."""

from dataclasses import dataclass
from pathlib import Path

from agentlab.config.workspace import Workspace
from agentlab.errors import MissingFileError, UnknownNameError
from agentlab.models import store
from agentlab.models.importer import import_gguf


@dataclass(frozen=True, slots=True)
class BaseFile:
    """Where the checkpoint lies, or will lie once the GGUF file `source` has been imported.

    `file` is the GGUF file that it is, or was, imported from; None for a folder.
    """

    name: str
    path: Path
    source: Path | None = None
    file: Path | None = None


def find_base(name: str, workspace: Workspace) -> BaseFile:
    """What a config's `base` means.

    Raises:
        MissingFileError, UnknownNameError: there is no such model.
    """
    path = store.find(name, workspace)
    if path.is_dir():
        return BaseFile(name, path)
    imported = f"{store.stem_of(path.name)}-float32"
    try:
        return BaseFile(name, store.find(imported, workspace), file=path)
    except (UnknownNameError, MissingFileError):
        return BaseFile(name, workspace.models / imported, path, path)


def import_base(base: BaseFile) -> Path:
    """The checkpoint, made of the GGUF file if it is not there yet (half a minute, once).

    Raises:
        ModelFileError, StorageError: see `import_gguf`.
    """
    if base.source is not None and not base.path.is_dir():
        import_gguf(base.source, base.path, "float32")
    return base.path
