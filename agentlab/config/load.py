"""From a preset's name or a path to a checked config, with the origin of every value and all errors at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from agentlab.config.base import flatten
from agentlab.config.fields import preset_slots
from agentlab.config.keys import join, split
from agentlab.config.layers import Layer
from agentlab.config.overrides import Override
from agentlab.config.presets import ConfigFile, is_path, named_files, path_file
from agentlab.config.sentences import problems
from agentlab.config.workspace import Workspace
from agentlab.config.yaml_tree import read_text, read_yaml, write_yaml
from agentlab.errors import ConfigError, UnknownNameError

C = TypeVar("C", bound=BaseModel)

MAX_EXTENDS = 8
_MAX_LISTED = 30


@dataclass(frozen=True, slots=True)
class Loaded(Generic[C]):
    """A config, the file it came from as it was given, and where each dotted key got its value."""

    config: C
    source_text: str
    source_label: str
    origins: Mapping[str, str]


def load(
    model: type[C],
    command: str,
    ref: str | None,
    overrides: Sequence[Override],
    *,
    workspace: Workspace,
    env: Mapping[str, str],
    cwd: Path,
) -> Loaded[C]:
    """The config that `agentlab COMMAND REF --set ...` means; without `ref` the preset `default`.

    Raises:
        ConfigError: every problem of the files and overrides, one per line.
        UnknownNameError: there is no such preset.
    """
    source = source_file(command, ref or "default", workspace=workspace, cwd=cwd)
    text = read_text(source.path, source.label)
    layer = Layer()
    for lower in _chain(source, command, workspace):
        layer = _with_presets(model, layer.under(lower), workspace, workspace.root)
    layer = _with_presets(model, layer, workspace, workspace.root, defaults=True)
    wrong: list[str] = []
    for override in overrides:
        try:
            layer = _with_presets(model, layer.override(override), workspace, cwd, defaults=True)
        except ConfigError as error:
            wrong.append(error.message)
    layer = layer.pruned()
    config = _validate(
        model, layer, env, source.label, wrong, hint=f"`agentlab configs show {command}` prints every key."
    )
    return Loaded(config, text, source.label, _origins(config, layer))


def load_resolved(model: type[C], path: Path, overrides: Sequence[Override], *, env: Mapping[str, str]) -> C:
    """The config of a run's own `config.yaml`, which states every value, with overrides.

    Raises:
        ConfigError: the file or an override is wrong, or an override names a preset, which could have changed.
    """
    tree = read_yaml(read_text(path, path.name), path.name)
    layer = Layer(tree.data, {key: f"{path.name}:{line}" for key, line in tree.lines.items()})
    wrong: list[str] = []
    for override in overrides:
        try:
            layer = layer.override(override)
        except ConfigError as error:
            wrong.append(error.message)
    named = [slot.path for slot in preset_slots(model, layer.data) if isinstance(layer.value(slot.path), str)]
    wrong += [f"{layer.origin(path)}: {join(path)}: a run keeps the preset it started with" for path in named]
    return _validate(model, layer, env, path.name, wrong, hint=None)


def source_file(folder: str, ref: str, *, workspace: Workspace, cwd: Path) -> ConfigFile:
    """The file that CONFIG names: a path from the current folder, or a preset.

    Raises:
        UnknownNameError: there is no such preset.
    """
    return path_file(ref, cwd) if is_path(ref) else named_files(folder, ref, workspace)[0]


def resolved(config: BaseModel) -> dict[str, Any]:
    """Every value as plain data. Keys stay the names of variables; `${...}` elsewhere is already replaced."""
    return config.model_dump(mode="json")


def dump_yaml(config: BaseModel) -> str:
    """The text of a run's `config.yaml`; loading it gives an equal config."""
    return write_yaml(resolved(config))


def _chain(source: ConfigFile, folder: str, workspace: Workspace) -> list[Layer]:
    """The layers of a file and of everything it extends, the lowest first."""
    layers: list[Layer] = []
    seen: list[ConfigFile] = []
    here: ConfigFile | None = source
    while here is not None:
        seen.append(here)
        if len(seen) > MAX_EXTENDS:
            raise ConfigError(f"{source.label} extends more than {MAX_EXTENDS - 1} files in a row.")
        tree = read_yaml(read_text(here.path, here.label), here.label)
        line = tree.lines.get(("extends",), 1)
        name = tree.data.pop("extends", None)
        layers.insert(0, Layer(tree.data, {key: f"{here.label}:{line}" for key, line in tree.lines.items()}))
        here = None if name is None else _extended(name, f"{here.label}:{line}", seen, (folder, workspace))
    return layers


def _extended(name: Any, where: str, seen: Sequence[ConfigFile], place: tuple[str, Workspace]) -> ConfigFile:
    """The file that `extends: name` means. A workspace preset that extends its own name means the shipped one."""
    folder, workspace = place
    if not isinstance(name, str):
        raise ConfigError(f"{where}: extends: must be a preset's name or a path.")
    found = [path_file(name, workspace.root)] if is_path(name) else _named(folder, name, workspace, f"{where}: extends")
    met = {file.path.resolve() for file in seen}
    fresh = [file for file in found if file.path.resolve() not in met]
    if not fresh:
        raise ConfigError(f"{where}: extends: {' -> '.join(file.label for file in seen)} -> {name} is a circle.")
    return fresh[0]


def _with_presets(
    model: type[BaseModel], layer: Layer, workspace: Workspace, base: Path, *, defaults: bool = False
) -> Layer:
    """The layer with names and paths of presets replaced by their mappings; `defaults` fills what nobody has set.

    Relative paths start at `base`: in a file at the workspace, as typed at the current folder.
    """
    for slot in list(preset_slots(model, layer.data)):
        given = layer.value(slot.path)
        name = slot.default if given is None and defaults else given
        if isinstance(name, str):
            preset = Layer()
            where = f"{layer.origin(slot.path) or 'default'}: {join(slot.path)}"
            named = path_file(name, base) if is_path(name) else _named(slot.folder, name, workspace, where)[0]
            for lower in _chain(named, slot.folder, workspace):
                preset = preset.under(lower)
            layer = layer.graft(slot.path, preset)
    return layer


def _named(folder: str, name: str, workspace: Workspace, where: str) -> list[ConfigFile]:
    """`named_files`, whose complaint about an unknown name begins with the place that names it."""
    try:
        return named_files(folder, name, workspace)
    except UnknownNameError as error:
        error.message = f"{where}: {error.message}"
        error.args = (error.message,)
        raise


def _validate(
    model: type[C], layer: Layer, env: Mapping[str, str], label: str, wrong: Sequence[str], *, hint: str | None
) -> C:
    """The config.

    Raises:
        ConfigError: with the problems `wrong` and all that the model finds.
    """
    found = list(wrong)
    try:
        config = model.model_validate(layer.data, context={"env": env})
    except ValidationError as error:
        found += problems(error, model, layer, label)
    else:
        if not found:
            return config
    more = [f"... and {len(found) - _MAX_LISTED} more"] if len(found) > _MAX_LISTED else []
    raise ConfigError("\n".join([*found[:_MAX_LISTED], *more]), hint=hint)


def _origins(config: BaseModel, layer: Layer) -> dict[str, str]:
    """Where each key of the resolved config got its value; `default` is the model's."""
    places = {key: split(key) for key in flatten(resolved(config))}
    return {
        key: "default" if layer.value(place) is None else layer.origins.get(place, "default")
        for key, place in places.items()
    }
