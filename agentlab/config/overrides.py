"""`--set a.b=value` and the flags that are short for it, applied to a config's tree. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from agentlab.config.keys import Key, join, split, split_prefix
from agentlab.config.yaml_tree import MAX_DEPTH, read_value
from agentlab.errors import ConfigError

_RESERVED = ("%", "@", "`")  # no YAML value starts with one of these


@dataclass(frozen=True, slots=True)
class Override:
    """One changed value. `key` is dotted; `origin` is how the user said it: `--set`, `--max-iterations`."""

    key: str
    value: Any
    origin: str = "--set"


def parse(text: str) -> Override:
    """`key=value` as typed after `--set`; the value is YAML.

    Raises:
        ConfigError: no equals sign, a broken key, or a value that is not YAML.
    """
    try:
        parts, rest = split_prefix(text)
    except ValueError as error:
        raise ConfigError(f"--set: {error}.", hint="Write --set KEY=VALUE, as in --set training.epochs=3.") from error
    if not rest:
        raise ConfigError(f"--set {text!r} has no equals sign.", hint=f"Write --set {text}=VALUE.")
    key = join(parts)
    if len(parts) > MAX_DEPTH:
        raise ConfigError(f"--set {key[:40]}... is nested deeper than {MAX_DEPTH} levels.")
    return Override(key=key, value=_value(rest[1:], f"--set {key}"))


def _value(text: str, label: str) -> Any:
    """A YAML value. What starts with a mark that YAML keeps for itself, as `%d.%m.%Y` does, can only mean text."""
    return text if text.startswith(_RESERVED) else read_value(text, label)


def typed(settings: Mapping[str, Any]) -> str:
    """`--set key=value ...` as it is typed into a shell: behind the shell's quotes, `parse` reads the same values."""
    return " ".join(f"--set {_quoted(f'{key}={_written(value)}')}" for key, value in settings.items())


def _written(value: Any) -> str:
    """A value as `parse` reads it, plain where that is unambiguous. JSON is YAML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(_written_item(item) for item in value)}]"
    return value if isinstance(value, str) and _reads(value, value) else json.dumps(value, ensure_ascii=False)


def _written_item(value: Any) -> str:
    return value if isinstance(value, str) and _reads(f"[{value}]", [value]) else json.dumps(value, ensure_ascii=False)


def _reads(text: str, value: Any) -> bool:
    try:
        found = _value(text, "--set")
    except ConfigError:
        return False
    return type(found) is type(value) and bool(found == value)


def _quoted(text: str) -> str:
    """For a shell; in double quotes where that is easier to read than what `quote` makes of an apostrophe."""
    simple = "'" in text and not any(mark in text for mark in '"$`\\!')
    return f'"{text}"' if simple else quote(text)


def apply(tree: Mapping[str, Any], override: Override) -> dict[str, Any]:
    """The tree with one value replaced; missing mappings on the way are made.

    Raises:
        ConfigError: the key leads through a scalar, or names no element of a list.
    """
    changed: dict[str, Any] = replaced(tree, address(tree, override), override.value)
    return changed


def address(tree: Mapping[str, Any], override: Override) -> Key:
    """Where the override lands: its key, with list elements named by their `id` or `name` turned into indices.

    Raises:
        ConfigError: the key leads through a scalar, or names no element of a list.
    """
    try:
        parts = split(override.key)
    except ValueError as error:
        raise ConfigError(f"{override.origin}: {error}.") from error
    here: Any = tree
    found: list[str] = []
    for part in parts:
        if isinstance(here, list):
            part = _index(here, part, override, found)
            here = here[int(part)]
        elif isinstance(here, Mapping) or here is None:
            here = here.get(part) if here else None
        else:
            raise ConfigError(f"{override.origin}: {override.key}: {join(found)} is a single value, without keys.")
        found.append(part)
    return tuple(found)


def replaced(tree: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of `tree` with `value` at `path`, which `address` has found."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(tree, list):
        return [replaced(item, rest, value) if i == int(head) else item for i, item in enumerate(tree)]
    return {**(tree or {}), head: replaced((tree or {}).get(head), rest, value)}


def _index(items: list[Any], part: str, override: Override, found: Sequence[str]) -> str:
    for index, item in enumerate(items):
        if part in _names(item):
            return str(index)
    if part.isdecimal() and int(part) < len(items):
        return str(int(part))
    known = ", ".join(name for item in items for name in _names(item)[:1])
    listed = f"known are {known}" if known else f"it has {len(items)}, counted from 0"
    raise ConfigError(f"{override.origin}: {override.key}: {join(found)} has no element {part!r}; {listed}.")


def _names(item: Any) -> list[str]:
    """What an element of a list may be called."""
    return [str(item[key]) for key in ("id", "name") if key in item] if isinstance(item, Mapping) else []
