"""From a preset's name or a path to a checked config, with the origin of every value and all errors at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from agentlab.config.base import StrictModel, flatten
from agentlab.config.fields import preset_slots
from agentlab.config.keys import join, split
from agentlab.config.overrides import Layer, Override
from agentlab.config.presets import ConfigFile, Sources, is_path, named_files, path_file
from agentlab.config.validation_messages import display_value, problems
from agentlab.config.workspace import Workspace
from agentlab.config.yaml_tree import read_text, read_yaml, write_yaml
from agentlab.errors import ConfigError

C = TypeVar("C", bound=BaseModel)

_MAX_LISTED = 30


@dataclass(frozen=True, slots=True)
class LoadedConfig(Generic[C]):
    """A config, the file it came from as it was given, and where each dotted key got its value."""

    config: C
    source_text: str
    source_label: str
    origins: Mapping[str, str]


def load(
    model: type[C],
    command: str,
    ref: str | ConfigFile | None,
    overrides: Sequence[Override],
    *,
    workspace: Workspace,
    env: Mapping[str, str],
    cwd: Path,
) -> LoadedConfig[C]:
    """The config that `agentlab COMMAND REF --set ...` means; without `ref` the preset `default`.

    An override of a key that names a file (see `StrictModel.includes`) takes the place of what the files say there, and
    lays its file over them, as any override.

    Raises:
        ConfigError: every problem of the files and overrides, one per line.
        UnknownNameError: there is no such preset.
    """
    name = "default" if ref is None else ref
    source = name if isinstance(name, ConfigFile) else source_file(command, name, workspace, cwd)
    text = read_text(source.path, source.label)
    includes = _includes(model)
    replaced = frozenset(override.key for override in overrides) & frozenset(includes)
    sources = Sources(command, workspace, includes, replaced)
    layer = _with_layers(model, Layer(), source, sources)
    wrong: list[str] = []
    for override in overrides:
        try:
            if override.key not in includes:
                layer = _with_presets(model, layer.override(override), workspace, cwd, defaults=True)
            elif override.value is not None:
                layer = _with_layers(model, layer, _given_file(override, cwd), sources)
        except ConfigError as error:
            wrong.append(error.message)
    layer = layer.drop_nulls()
    hint = f"`agentlab configs show {command}` prints every key."
    config = _validate(model, layer, env, source.label, wrong, hint=hint)
    return LoadedConfig(config, text, source.label, _origins(config, layer))


def load_resolved(model: type[C], path: Path, overrides: Sequence[Override], *, env: Mapping[str, str]) -> C:
    """The config of a run's own `config.yaml`, which states every value, with overrides.

    Raises:
        ConfigError: the file or an override is wrong, or an override names a preset, which could have changed.
    """
    tree = read_yaml(read_text(path, path.name), path.name)
    layer = Layer(tree.data, {key: f"{path.name}:{position}" for key, position in tree.places.items()})
    wrong: list[str] = []
    for override in overrides:
        if override.key in _includes(model):
            wrong.append(f"{override.origin}: {override.key}: a run keeps the files it started with")
            continue
        try:
            layer = layer.override(override)
        except ConfigError as error:
            wrong.append(error.message)
    named = [slot.path for slot in preset_slots(model, layer.data) if isinstance(layer.value(slot.path), str)]
    wrong += [f"{layer.origin(path)}: {join(path)}: a run keeps the preset it started with" for path in named]
    return _validate(model, layer, env, path.name, wrong, hint=None)


def source_file(folder: str, ref: str, workspace: Workspace, cwd: Path) -> ConfigFile:
    """The file that CONFIG names: a path from the current folder, or a preset.

    Raises:
        UnknownNameError: there is no such preset.
    """
    return path_file(ref, cwd) if is_path(ref) else named_files(folder, ref, workspace)[0]


def config_values(config: BaseModel) -> dict[str, Any]:
    """Every value as plain data. Keys stay the names of variables; `${...}` elsewhere is already replaced."""
    return config.model_dump(mode="json")


def dump_yaml(config: BaseModel) -> str:
    """The text of a run's `config.yaml`; loading it gives an equal config."""
    return write_yaml(config_values(config))


def _includes(model: type[BaseModel]) -> tuple[str, ...]:
    return model.includes if issubclass(model, StrictModel) else ()


def _given_file(override: Override, cwd: Path) -> ConfigFile:
    where = f"{override.origin}: {override.key}"
    if not isinstance(override.value, str):
        raise ConfigError(f"{where}: must be the path of a YAML file, not {display_value(override.value)}")
    file = path_file(override.value, cwd)
    if not file.path.is_file():
        raise ConfigError(f"{where}: there is no file {file.label}")
    return file


def _with_layers(model: type[BaseModel], layer: Layer, file: ConfigFile, sources: Sources) -> Layer:
    """The layer with a file and all that it stands on laid on it."""
    workspace = sources.workspace
    for lower in sources.layers(file):
        layer = _with_presets(model, layer.with_upper(lower), workspace, workspace.root)
    return _with_presets(model, layer, workspace, workspace.root, defaults=True)


def _with_presets(
    model: type[BaseModel], layer: Layer, workspace: Workspace, base: Path, *, defaults: bool = False
) -> Layer:
    """The layer with names and paths of presets replaced by their mappings; `defaults` fills what nobody has set.

    Relative paths start at `base`: in a file at the workspace, as typed at the current folder.
    """
    for slot in list(preset_slots(model, layer.data)):
        slot_value = layer.value(slot.path)
        name = slot.default if slot_value is None and defaults else slot_value
        if isinstance(name, str):
            preset, sources = Layer(), Sources(slot.folder, workspace)
            where = f"{layer.origin(slot.path) or 'default'}: {join(slot.path)}"
            preset_file = path_file(name, base) if is_path(name) else sources.find_named(name, where)[0]
            for lower in sources.layers(preset_file):
                preset = preset.with_upper(lower)
            layer = layer.graft(slot.path, preset)
    return layer


def _validate(
    model: type[C], layer: Layer, env: Mapping[str, str], label: str, wrong: Sequence[str], *, hint: str | None
) -> C:
    """The config. An error lists `wrong` and what the model finds; without either, the problems between its parts."""
    complaints = list(wrong)
    try:
        config = model.model_validate(layer.data, context={"env": env})
    except ValidationError as error:
        complaints += problems(error, model, layer, label)
    else:
        between = config.problems() if isinstance(config, StrictModel) else ()
        complaints += [f"{layer.origin(key) or label}: {join(key)}: {sentence}" for key, sentence in between]
        if not complaints:
            return config
    omitted = [f"... and {len(complaints) - _MAX_LISTED} more"] if len(complaints) > _MAX_LISTED else []
    raise ConfigError("\n".join([*complaints[:_MAX_LISTED], *omitted]), hint=hint)


def _origins(config: BaseModel, layer: Layer) -> dict[str, str]:
    paths = {key: split(key) for key in flatten(config_values(config))}
    return {
        key: "default" if layer.value(path) is None else layer.origins.get(path, "default")
        for key, path in paths.items()
    }
