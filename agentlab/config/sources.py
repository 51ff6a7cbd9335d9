"""A config file and the files it stands on: the one it extends, and those it includes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab.config.layers import Layer
from agentlab.config.presets import ConfigFile, is_path, named_files, path_file
from agentlab.config.workspace import Workspace
from agentlab.config.yaml_tree import read_text, read_yaml
from agentlab.errors import ConfigError, UnknownNameError
from agentlab.files import written_path

MAX_FILES = 8  # in a row, each named by the one before

_EXTENDS = "extends"


@dataclass(frozen=True, slots=True)
class Sources:
    """How the files of one kind of config are read.

    Attributes:
        folder: of its presets, below `configs/`.
        workspace: where relative paths in a file start.
        includes: the top-level keys that name further files.
        replaced: those among them that the caller has given, so that what a file says there does not count.
    """

    folder: str
    workspace: Workspace
    includes: tuple[str, ...] = ()
    replaced: frozenset[str] = frozenset()

    def layers(self, file: ConfigFile, above: tuple[ConfigFile, ...] = ()) -> list[Layer]:
        """The file's layer, before it those of what it includes, and before these those of what it extends.

        Args:
            file: what is read.
            above: the files that lead to it.

        Raises:
            ConfigError: a file is no config, or leads back to itself.
            UnknownNameError: it extends a preset that does not exist.
        """
        way = (*above, file)
        if len(way) > MAX_FILES:
            raise ConfigError(f"{way[0].label} leads to more than {MAX_FILES - 1} files in a row.")
        tree = read_yaml(read_text(file.path, file.label), file.label)
        below: list[Layer] = []
        for key in (_EXTENDS, *self.includes):
            name = tree.data.pop(key, None)
            if name is None or key in self.replaced:
                continue
            where = f"{file.label}:{tree.places[(key,)]}: {key}"
            meant = self._extended(name, where) if key == _EXTENDS else [self._included(name, file, where)]
            below += self.layers(_fresh(meant, way, f"{where}: {_path(way)} -> {name}"), way)
        return [*below, Layer(tree.data, {key: f"{file.label}:{place}" for key, place in tree.places.items()})]

    def named(self, name: str, where: str) -> list[ConfigFile]:
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

    def _extended(self, name: Any, where: str) -> list[ConfigFile]:
        """What `extends: name` may mean. A workspace preset that extends its own name means the shipped one."""
        if not isinstance(name, str):
            raise ConfigError(f"{where}: must be a preset's name or a path.")
        return [path_file(name, self.workspace.root)] if is_path(name) else self.named(name, where)

    def _included(self, name: Any, file: ConfigFile, where: str) -> ConfigFile:
        """A path from the workspace or, when nothing is there, from the file's own folder."""
        if not isinstance(name, str):
            raise ConfigError(f"{where}: must be the path of a YAML file.")
        named = path_file(name, self.workspace.root)
        beside = ConfigFile(file.path.parent / written_path(name), str(Path(file.label).parent / name))
        for meant in (named, beside):
            if meant.path.is_file():
                return meant
        raise ConfigError(
            f"{where}: there is no file {name}.",
            hint=f"It was looked for in {self.workspace.root}, and beside {file.label}.",
        )


def _fresh(meant: list[ConfigFile], way: tuple[ConfigFile, ...], step: str) -> ConfigFile:
    met = {file.path.resolve() for file in way}
    fresh = [file for file in meant if file.path.resolve() not in met]
    if not fresh:
        raise ConfigError(f"{step} is a circle.")
    return fresh[0]


def _path(way: tuple[ConfigFile, ...]) -> str:
    return " -> ".join(file.label for file in way)
