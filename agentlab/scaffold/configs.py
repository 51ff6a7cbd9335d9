"""What `agentlab configs` answers: the presets there are, a resolved config with origins, checks, JSON schemas."""

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agentlab.commands import COMMANDS, command
from agentlab.config.base import StrictModel
from agentlab.config.keys import join
from agentlab.config.load import LoadedConfig, config_values, load
from agentlab.config.overrides import Override
from agentlab.config.presets import is_path, path_file, presets
from agentlab.config.yaml_tree import read_yaml, write_yaml
from agentlab.errors import ConfigError, UnknownNameError, UsageError
from agentlab.runs.context import Context
from agentlab.runs.document import AnswerDocument, Block, Code, Table, Text

_COMMENT_COLUMN = 56  # origins line up behind most values
# Where a JSON schema holds further schemas: under names, in lists, alone.
_NAMED = ("properties", "$defs")
_ONE_OF = ("anyOf", "oneOf", "allOf", "prefixItems")
_INNER = ("items", "additionalProperties")


class PresetLine(AnswerDocument):
    """One preset: `kind` is a command, or `llm` for a setup of language models."""

    kind: str
    name: str
    description: str
    shipped: bool
    path: str


class PresetList(AnswerDocument):
    """All presets, the default of each command first."""

    presets: list[PresetLine]

    def blocks(self) -> list[Block]:
        rows = [(p.kind, p.name, "shipped" if p.shipped else "yours", p.description) for p in self.presets]
        return [Table(("for", "preset", "from", "description"), rows)] if rows else [Text("There are no presets.")]


class ShownConfig(AnswerDocument):
    """A resolved config, and per dotted key where its value comes from."""

    kind: str
    source: str
    config: dict[str, Any]
    origins: dict[str, str]

    def blocks(self) -> list[Block]:
        return [Code(annotate_config(self.config, self.origins).rstrip("\n"))]


class CheckedConfigs(AnswerDocument):
    """The files that were found to be valid."""

    valid: list[str]

    def blocks(self) -> list[Block]:
        return [Text(f"{len(self.valid)} config{' is' if len(self.valid) == 1 else 's are'} valid.")]


class ConfigSchema(AnswerDocument):
    """A JSON schema of the files a command reads, for editors."""

    kind: str
    json_schema: dict[str, Any]

    def blocks(self) -> list[Block]:
        return [Code(json.dumps(self.json_schema, indent=2, ensure_ascii=False))]


def kinds() -> list[str]:
    """What configs are for: the commands, and `llm`."""
    return [*COMMANDS, "llm"]


def list_presets(kind: str | None, context: Context) -> PresetList:
    """The presets of one kind, or of all."""
    if kind is not None:
        _model(kind)
    unsorted_presets = chain.from_iterable(presets(name, context.workspace) for name in ([kind] if kind else kinds()))
    lines = [
        PresetLine(kind=p.folder, name=p.name, description=p.description, shipped=p.shipped, path=str(p.file.path))
        for p in sorted(unsorted_presets, key=lambda p: (kinds().index(p.folder), p.name != "default"))
    ]
    return PresetList(presets=lines)


def show(kind: str, ref: str | None, overrides: Sequence[Override], context: Context, cwd: Path) -> ShownConfig:
    """A config as `kind` would run it.

    Raises:
        ConfigError: it is wrong; the message lists every problem.
        UnknownNameError: there is no such command or preset.
    """
    if kind == "llm" and ref is None:
        ref = "embedded"
    loaded = _load(kind, ref, overrides, context, cwd)
    return ShownConfig(
        kind=kind, source=loaded.source_label, config=config_values(loaded.config), origins=dict(loaded.origins)
    )


def validate(refs: Sequence[str], kind: str | None, context: Context, cwd: Path) -> CheckedConfigs:
    """Check files, or all presets when none is named. A file in `configs/nas/` is one for `nas`.

    Raises:
        ConfigError: some are wrong; the message lists every problem of every file.
        UsageError: it is not clear which command a file is for.
    """
    jobs = [(kind or _kind_of(ref, cwd), ref) for ref in refs]
    if not refs:
        jobs = [(p.kind, p.name) for p in list_presets(kind, context).presets]
    valid, wrong = [], []
    for its_kind, ref in jobs:
        try:
            _load(its_kind, ref, (), context, cwd)
        except (ConfigError, UnknownNameError) as error:
            wrong.append(error.message)
        else:
            valid.append(ref if is_path(ref) else f"{its_kind}/{ref}")
    if wrong:
        raise ConfigError("\n".join(wrong), hint="`agentlab configs show COMMAND` prints every key.")
    return CheckedConfigs(valid=valid)


def result_schema(kind: str) -> ConfigSchema:
    """The JSON schema of a command's result, with the headings and explanations of its tables."""
    return ConfigSchema(kind=kind, json_schema=command(kind).result_model().model_json_schema(mode="serialization"))


def schema(kind: str) -> ConfigSchema:
    """The JSON schema of a command's config files.

    A file may leave out whatever it extends, so no key is required, and it may name a preset for a mapping.
    """
    model = _model(kind)
    json_schema = _for_files(model.model_json_schema())
    named = {"extends": "A preset or path that this file extends."}
    if issubclass(model, StrictModel):
        named |= dict.fromkeys(model.includes, "The path of a file that this one extends.")
    files = {key: {"type": "string", "description": description} for key, description in named.items()}
    return ConfigSchema(kind=kind, json_schema={**json_schema, "properties": files | json_schema["properties"]})


def annotate_config(config: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """The config as YAML, each value followed by where it comes from. Pure."""
    lines = write_yaml(dict(config)).split("\n")
    for key, position in read_yaml("\n".join(lines), "the resolved config").places.items():
        origin = origins.get(join(key))
        if origin is not None:
            lines[position.line - 1] = f"{lines[position.line - 1]:<{_COMMENT_COLUMN}}  # {origin}"
    return "\n".join(lines)


def _load(
    kind: str, ref: str | None, overrides: Sequence[Override], context: Context, cwd: Path
) -> LoadedConfig[BaseModel]:
    return load(_model(kind), kind, ref, overrides, workspace=context.workspace, env=context.env, cwd=cwd)


def _model(kind: str) -> type[BaseModel]:
    if kind == "llm":
        from agentlab.llm.config import LLMConfig

        return LLMConfig
    if kind not in COMMANDS:
        raise UnknownNameError("command", kind, kinds())
    return COMMANDS[kind].config_model()


def _kind_of(ref: str, cwd: Path) -> str:
    folder = path_file(ref, cwd).path.absolute().parent.name
    if folder not in kinds():
        hint = f"Add --command with one of {', '.join(kinds())}."
        raise UsageError(f"It is not clear which command {ref} is for.", hint=hint)
    return folder


def _for_files(schema: dict[str, Any]) -> dict[str, Any]:
    """A model's schema, loosened to what a file may hold."""
    loose: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED:
            loose[key] = {name: _for_files(inner) for name, inner in value.items()}
        elif key in _ONE_OF:
            loose[key] = [_for_files(inner) for inner in value]
        elif key in _INNER and isinstance(value, dict):
            loose[key] = _for_files(value)
        elif key not in ("required", "presets", "role"):
            loose[key] = value
    if "presets" not in schema:
        return loose
    about = {key: value for key, value in loose.items() if key in ("description", "default", "title")}
    shape = {key: value for key, value in loose.items() if key not in about}
    return {**about, "anyOf": [{"type": "string"}, shape]}
