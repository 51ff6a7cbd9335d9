"""Where configs lie: the workspace's `configs/FOLDER/NAME.yaml`, then the shipped ones, then paths."""

import re
from dataclasses import dataclass
from pathlib import Path

from agentlab.config.workspace import Workspace
from agentlab.config.yaml_tree import read_text
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
        raise ConfigError(f"{ref[:80]!r} is no path: it holds a NUL character.")
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
            hint="A name has letters, digits, dots, dashes and underscores.",
        )
    label = f"configs/{folder}/{name}.yaml"
    found = [root / folder / f"{name}.yaml" for root in _roots(workspace)]
    files = [ConfigFile(path, label) for path in found if path.is_file()]
    if not files:
        raise UnknownNameError(f"{folder} preset", name, known(folder, workspace), hint="See `agentlab configs list`.")
    return files


def known(folder: str, workspace: Workspace) -> list[str]:
    """Names of all presets of a folder."""
    found = (path for root in _roots(workspace) for path in (root / folder).glob("*.yaml"))
    return sorted({path.stem for path in found if path.is_file()})


def presets(folder: str, workspace: Workspace) -> list[Preset]:
    """All presets of a folder, by name; the workspace's hide shipped ones of the same name."""
    return [_preset(folder, name, workspace) for name in known(folder, workspace) if _NAME.fullmatch(name)]


def _preset(folder: str, name: str, workspace: Workspace) -> Preset:
    file = named_files(folder, name, workspace)[0]
    first = read_text(file.path, file.label).partition("\n")[0].strip()
    description = first.lstrip("# ").strip() if first.startswith("#") else ""
    return Preset(folder, name, description, file.path.is_relative_to(shipped_folder()), file)


def _roots(workspace: Workspace) -> list[Path]:
    """Each folder once: in a checkout the workspace's presets are the shipped ones."""
    roots = (workspace.configs, shipped_folder())
    return [root for i, root in enumerate(roots) if i == 0 or root.resolve() != roots[0].resolve()]
