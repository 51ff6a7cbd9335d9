"""Where configs lie: the workspace's `configs/FOLDER/NAME.yaml`, then the shipped ones, then paths."""

import re
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from agentlab.config.overrides import Layer
from agentlab.config.workspace import Workspace
from agentlab.config.yaml_tree import read_text, read_yaml
from agentlab.errors import ConfigError, UnknownNameError
from agentlab.files import written_path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A config file and how messages name it."""

    path: Path
    label: str


@dataclass(frozen=True, slots=True)
class Preset:
    """A named config. `description` is its first comment line."""

    folder: str
    name: str
    description: str
    shipped: bool
    file: ConfigFile


def shipped_folder() -> Path:
    """`agentlab/configs` of an installed wheel, or `configs` beside the package of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def is_path(ref: str) -> bool:
    """Whether a CONFIG is a path rather than a preset's name."""
    return "/" in ref or "\\" in ref or ref.endswith(_ENDINGS)


def path_file(ref: str, base: Path) -> ConfigFile:
    """The file a path names; a relative one starts at `base`.

    Raises:
        ConfigError: it leads to no place.
    """
    if "\0" in ref:
        raise ConfigError(f"{ref[:80]!r} is not a valid path: it contains a NUL byte.")
    return ConfigFile(base / written_path(ref), ref)


def named_files(folder: str, name: str, workspace: Workspace) -> list[ConfigFile]:
    """The files behind a preset's name, the workspace's before the shipped one.

    Raises:
        ConfigError: the name is none.
        UnknownNameError: there is no such preset.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:80]!r} cannot be the name of a preset in configs/{folder}.",
            hint="Use letters, digits, dots, dashes and underscores.",
        )
    label = f"configs/{folder}/{name}.yaml"
    candidates = [root / folder / f"{name}.yaml" for root in _roots(workspace)]
    files = [ConfigFile(path, label) for path in candidates if path.is_file()]
    if not files:
        raise UnknownNameError(
            f"{folder} preset", name, preset_names(folder, workspace), hint="See `agentlab configs list`."
        )
    return files


def preset_names(folder: str, workspace: Workspace) -> list[str]:
    """Names of all presets of a folder."""
    paths = chain.from_iterable((root / folder).glob("*.yaml") for root in _roots(workspace))
    return sorted({path.stem for path in paths if path.is_file()})


def presets(folder: str, workspace: Workspace) -> list[Preset]:
    """All presets of a folder, by name; the workspace's hide shipped ones of the same name."""
    return [_preset(folder, name, workspace) for name in preset_names(folder, workspace) if _NAME.fullmatch(name)]


def _preset(folder: str, name: str, workspace: Workspace) -> Preset:
    file = named_files(folder, name, workspace)[0]
    first = read_text(file.path, file.label).partition("\n")[0].strip()
    description = first.lstrip("# ").strip() if first.startswith("#") else ""
    return Preset(folder, name, description, file.path.is_relative_to(shipped_folder()), file)


def _roots(workspace: Workspace) -> list[Path]:
    """Each folder once: in a checkout the workspace's presets are the shipped ones."""
    roots = (workspace.configs, shipped_folder())
    return [root for i, root in enumerate(roots) if i == 0 or root.resolve() != roots[0].resolve()]


MAX_FILES = 8  # in a row, each named by the one before

_EXTENDS = "extends"


@dataclass(frozen=True, slots=True)
class Sources:
    """How the files of one kind of config are read."""

    folder: str  # of its presets, below `configs/`
    workspace: Workspace  # where relative paths in a file start
    includes: tuple[str, ...] = ()  # the top-level keys that name further files
    replaced: frozenset[str] = frozenset()  # keys among them that the caller has given: those of a file do not count

    def layers(self, file: ConfigFile, above: tuple[ConfigFile, ...] = ()) -> list[Layer]:
        """The file's layer, before it those of what it includes, and before these those of what it extends.

        `above` are the files that lead to this one.

        Raises:
            ConfigError: a file is no config, or leads back to itself.
            UnknownNameError: it extends a preset that does not exist.
        """
        file_chain = (*above, file)
        if len(file_chain) > MAX_FILES:
            raise ConfigError(f"{file_chain[0].label} extends more than {MAX_FILES - 1} other files.")
        tree = read_yaml(read_text(file.path, file.label), file.label)
        below: list[Layer] = []
        for key in (_EXTENDS, *self.includes):
            name = tree.data.pop(key, None)
            if name is None or key in self.replaced:
                continue
            where = f"{file.label}:{tree.places[(key,)]}: {key}"
            candidates = self._find_extended(name, where) if key == _EXTENDS else self._find_included(name, file, where)
            visited = {visited_file.path.resolve() for visited_file in file_chain}
            unvisited = [candidate for candidate in candidates if candidate.path.resolve() not in visited]
            if not unvisited:
                labels = " -> ".join(visited_file.label for visited_file in file_chain)
                raise ConfigError(f"{where}: {labels} -> {name} is a cycle.")
            below += self.layers(unvisited[0], file_chain)
        return [*below, Layer(tree.data, {key: f"{file.label}:{position}" for key, position in tree.places.items()})]

    def find_named(self, name: str, where: str) -> list[ConfigFile]:
        """The files behind a preset's name.

        Raises:
            UnknownNameError: there is none; the message begins with `where`.
        """
        try:
            return named_files(self.folder, name, self.workspace)
        except UnknownNameError as error:
            error.message = f"{where}: {error.message}"
            error.args = (error.message,)
            raise

    def _find_extended(self, name: Any, where: str) -> list[ConfigFile]:
        """What `extends: name` may mean. A workspace preset that extends its own name means the shipped one."""
        if not isinstance(name, str):
            raise ConfigError(f"{where}: must be a preset's name or a path.")
        return [path_file(name, self.workspace.root)] if is_path(name) else self.find_named(name, where)

    def _find_included(self, name: Any, file: ConfigFile, where: str) -> list[ConfigFile]:
        """A path from the workspace or, when nothing is there, from the file's own folder."""
        if not isinstance(name, str):
            raise ConfigError(f"{where}: must be the path of a YAML file.")
        workspace_file = path_file(name, self.workspace.root)
        sibling_file = ConfigFile(file.path.parent / written_path(name), str(Path(file.label).parent / name))
        for candidate in (workspace_file, sibling_file):
            if candidate.path.is_file():
                return [candidate]
        raise ConfigError(
            f"{where}: there is no file {name}.",
            hint=f"Searched in {self.workspace.root} and next to {file.label}.",
        )
