"""Which adapters lie in the workspace's `adapters/`, and which folder a name means."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError, MissingFileError, UnknownNameError
from agentlab.lora.card import Card, read_card

if TYPE_CHECKING:
    from agentlab.lora.reading import Adapter

_HINT = "Use a name from `agentlab adapters list`, or a path with a slash."


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """An adapter without its numbers: smallest and largest rank and scale of its modules, and how many of each type."""

    ranks: tuple[int, int]
    scales: tuple[float, float]
    targets: Mapping[str, int]
    base: str


@dataclass(frozen=True, slots=True)
class AdapterEntry:
    """A folder of `adapters/`; one without a shape is damaged."""

    name: str
    path: Path
    bytes: int
    made: float | None  # when its weights were written, in seconds since the epoch
    shape: AdapterShape | None
    card: Card
    problem: str | None  # what is wrong with it or its card


def list_adapters(workspace: Workspace) -> list[AdapterEntry]:
    """Every folder of `adapters/`, by name; damaged ones too."""
    return [_entry(path) for path in _folders(workspace)]


def find(name: str, workspace: Workspace) -> Path:
    """The folder that the command line means: by its name in `adapters/`, or by a path with a slash.

    Raises:
        MissingFileError: a path to nothing.
        UnknownNameError: nothing bears that name.
    """
    if "/" in name or "\\" in name or name.startswith("~"):
        path = workspace.resolve(name)
        if not path.is_dir():
            raise MissingFileError(f"No such adapter folder: {path}.", hint=_HINT)
        return path
    folders = {path.name: path for path in _folders(workspace)}
    if name not in folders:
        raise UnknownNameError("adapter", name, sorted(folders), hint=_HINT)
    return folders[name]


def shape_of(adapter: "Adapter") -> AdapterShape:
    """What can be said of an open adapter without reading its numbers."""
    modules = adapter.modules.values()
    ranks, scales = [module.rank for module in modules], [module.scale for module in modules]
    return AdapterShape(
        ranks=(min(ranks), max(ranks)),
        scales=(min(scales), max(scales)),
        targets=dict(Counter(module_type(name) for name in adapter.modules)),
        base=adapter.settings.base[0],
    )


def module_type(module: str) -> str:
    """What modules of all layers have in common: `model.layers.0.self_attn.q_proj` is a `q_proj`."""
    return module.rpartition(".")[2]


def _folders(workspace: Workspace) -> list[Path]:
    if not workspace.adapters.is_dir():
        return []
    return sorted(path for path in workspace.adapters.iterdir() if path.is_dir() and not path.name.startswith("."))


def _entry(path: Path) -> AdapterEntry:
    from agentlab.lora.reading import Adapter  # loads torch, which a name does not need

    shape, card, problem = None, Card(), None
    try:
        with Adapter(path) as adapter:
            shape = shape_of(adapter)
        card = read_card(path)
    except AgentlabError as error:
        problem = error.message
    except OSError as error:
        problem = f"Cannot read {path}: {error.strerror or error}."
    size, written_at = _measure(path)
    return AdapterEntry(path.name, path, size, written_at, shape, card, problem)


def _measure(path: Path) -> tuple[int, float | None]:
    """Bytes of the files directly in a folder, and when its weights were written."""
    from agentlab.lora.reading import WEIGHTS_FILE

    try:
        sizes = [part.stat().st_size for part in path.iterdir() if part.is_file()]
        return sum(sizes), (path / WEIGHTS_FILE).stat().st_mtime
    except OSError:
        return 0, None
