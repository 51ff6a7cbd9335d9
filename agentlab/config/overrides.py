"""`--set a.b=value` and the flags that are short for it, applied to a config's tree. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import chain
from shlex import quote
from typing import Any

from agentlab.config.keys import Key, child, join, split, split_prefix
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
        ConfigError: no equals sign, a broken key, no value, or one that is not YAML.
    """
    try:
        parts, remainder = split_prefix(text)
    except ValueError as error:
        raise ConfigError(f"--set: {error}.", hint="Write --set KEY=VALUE, as in --set training.epochs=3.") from error
    if not remainder:
        raise ConfigError(f"--set {text!r} has no equals sign.", hint=f"Write --set {text}=VALUE.")
    key = join(parts)
    if not remainder[1:].strip():
        raise ConfigError(
            f"{key}= has no value.",
            hint=f"Is a shell variable unset? --set {key}=null resets the key.",
        )
    if len(parts) > MAX_DEPTH:
        raise ConfigError(f"--set {key[:40]}... is nested deeper than {MAX_DEPTH} levels.")
    return Override(key=key, value=_value(remainder[1:], f"--set {key}"))


def _value(text: str, label: str) -> Any:
    """A YAML value. What starts with a mark that YAML keeps for itself, as `%d.%m.%Y` does, can only mean text."""
    return text if text.startswith(_RESERVED) else read_value(text, label)


def format_set_options(settings: Mapping[str, Any]) -> str:
    """`--set key=value ...` as it is typed into a shell: behind the shell's quotes, `parse` reads the same values."""
    return " ".join(f"--set {_quote_for_shell(f'{key}={_format_value(value)}')}" for key, value in settings.items())


def _format_value(value: Any) -> str:
    """A value as `parse` reads it, plain where that is unambiguous. JSON is YAML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(_written_item(item) for item in value)}]"
    return value if isinstance(value, str) and _reads(value, value) else json.dumps(value, ensure_ascii=False)


def _written_item(value: Any) -> str:
    return value if isinstance(value, str) and _reads(f"[{value}]", [value]) else json.dumps(value, ensure_ascii=False)


def _reads(text: str, value: Any) -> bool:
    try:
        parsed_value = _value(text, "--set")
    except ConfigError:
        return False
    return type(parsed_value) is type(value) and bool(parsed_value == value)


def _quote_for_shell(text: str) -> str:
    """For a shell; in double quotes where that is easier to read than what `quote` makes of an apostrophe."""
    simple = "'" in text and not any(mark in text for mark in '"$`\\!')
    return f'"{text}"' if simple else quote(text)


def address(tree: Mapping[str, Any], override: Override) -> Key:
    """Where the override lands: its key, with list elements named by their `id` or `name` turned into indices.

    Raises:
        ConfigError: the key leads through a scalar, or names no element of a list.
    """
    try:
        parts = split(override.key)
    except ValueError as error:
        raise ConfigError(f"{override.origin}: {error}.") from error
    node: Any = tree
    path: list[str] = []
    for part in parts:
        if isinstance(node, list):
            part = _index(node, part, override, path)
            node = node[int(part)]
        elif isinstance(node, Mapping) or node is None:
            node = node.get(part) if node else None
        else:
            raise ConfigError(f"{override.origin}: {override.key}: {join(path)} is a single value and has no keys.")
        path.append(part)
    return tuple(path)


def replace_at(tree: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of `tree` with `value` at `path`, which `address` has found."""
    if not path:
        return value
    head, tail = path[0], path[1:]
    if isinstance(tree, list):
        return [replace_at(item, tail, value) if i == int(head) else item for i, item in enumerate(tree)]
    return {**(tree or {}), head: replace_at((tree or {}).get(head), tail, value)}


def _index(items: list[Any], part: str, override: Override, path: Sequence[str]) -> str:
    for index, item in enumerate(items):
        if part in _names(item):
            return str(index)
    if part.isdecimal() and int(part) < len(items):
        return str(int(part))
    names = ", ".join(chain.from_iterable(_names(item)[:1] for item in items))
    listed = f"known: {names}" if names else f"it has {len(items)}, counted from 0"
    raise ConfigError(f"{override.origin}: {override.key}: {join(path)} has no element {part!r}; {listed}.")


def _names(item: Any) -> list[str]:
    return [str(item[key]) for key in ("id", "name") if key in item] if isinstance(item, Mapping) else []


@dataclass(frozen=True, slots=True)
class Layer:
    """A config's tree and, per key, its origin: `default.yaml:12:3`, `--set`. A null asks for the model's default."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: Mapping[Key, str] = field(default_factory=dict)

    def with_upper(self, upper: "Layer") -> "Layer":
        """This layer with `upper` laid on it: mappings are merged; lists, scalars and nulls replace."""
        origins = dict(self.origins)
        data = _merge(self.data, upper.data, (), origins)
        return Layer(data, {**origins, **upper.origins})

    def graft(self, path: Key, sub: "Layer") -> "Layer":
        """This layer with the tree of `sub` at `path`, in place of what was there."""
        origins = dict(self.origins)
        _forget_below(path, origins)
        origins |= {(*path, *key): origin for key, origin in sub.origins.items()}
        return Layer(replace_at(self.data, path, sub.data), origins)

    def override(self, change: Override) -> "Layer":
        """This layer with one value changed.

        Raises:
            ConfigError: the key leads nowhere.
        """
        path = address(self.data, change)
        origins = {path[:length]: change.origin for length in range(1, len(path))} | dict(self.origins)
        _forget_below(path, origins)
        origins |= {(*path, *key): change.origin for key in _keys(change.value)}
        return Layer(replace_at(self.data, path, change.value), origins)

    def drop_nulls(self) -> "Layer":
        return Layer(without_nulls(self.data), self.origins)

    def value(self, path: Key) -> Any:
        return reduce(child, path, self.data)

    def origin(self, path: Key) -> str | None:
        """Where the value at `path`, or the nearest mapping around it, was written."""
        prefixes = (path[:length] for length in range(len(path), 0, -1))
        return next((self.origins[prefix] for prefix in prefixes if prefix in self.origins), None)


def without_nulls(tree: Any) -> Any:
    """The tree without null-valued keys, at any depth. A null inside a list stays."""
    if isinstance(tree, Mapping):
        return {key: without_nulls(value) for key, value in tree.items() if value is not None}
    return [without_nulls(item) for item in tree] if isinstance(tree, list) else tree


def _merge(base: Mapping[str, Any], upper: Mapping[str, Any], path: Key, origins: dict[Key, str]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in upper.items():
        below = base.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(below, value, (*path, key), origins)
        else:
            merged[key] = value
            _forget_below((*path, key), origins)
    return merged


def _forget_below(path: Key, origins: dict[Key, str]) -> None:
    for key in [key for key in origins if len(key) > len(path) and key[: len(path)] == path]:
        del origins[key]


def _keys(value: Any) -> Iterator[Key]:
    """Every place in a value, the value itself first."""
    yield ()
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        for key in _keys(item):
            yield (str(name), *key)
