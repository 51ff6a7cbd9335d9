"""Config files laid over each other. Every value remembers where it was written. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentlab.config.keys import Key, child
from agentlab.config.overrides import Override, address, replaced


@dataclass(frozen=True, slots=True)
class Layer:
    """A config's tree and, per key, its origin: `default.yaml:12:3`, `--set`. A null asks for the model's default."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: Mapping[Key, str] = field(default_factory=dict)

    def under(self, over: "Layer") -> "Layer":
        """This layer with `over` laid on it: mappings are merged; lists, scalars and nulls replace."""
        origins = dict(self.origins)
        data = _merge(self.data, over.data, (), origins)
        return Layer(data, {**origins, **over.origins})

    def graft(self, path: Key, sub: "Layer") -> "Layer":
        """This layer with the tree of `sub` at `path`, in place of what was there."""
        origins = dict(self.origins)
        _forget_below(path, origins)
        origins |= {(*path, *key): origin for key, origin in sub.origins.items()}
        return Layer(replaced(self.data, path, sub.data), origins)

    def override(self, change: Override) -> "Layer":
        """This layer with one value changed.

        Raises:
            ConfigError: the key leads nowhere.
        """
        path = address(self.data, change)
        origins = {path[:length]: change.origin for length in range(1, len(path))} | dict(self.origins)
        _forget_below(path, origins)
        origins |= {(*path, *key): change.origin for key in _keys(change.value)}
        return Layer(replaced(self.data, path, change.value), origins)

    def pruned(self) -> "Layer":
        """Without the keys that are null, so that the model's defaults hold for them."""
        return Layer(without_nulls(self.data), self.origins)

    def value(self, path: Key) -> Any:
        """What the tree holds at `path`; None when there is nothing."""
        here: Any = self.data
        for part in path:
            here = child(here, part)
        return here

    def origin(self, path: Key) -> str | None:
        """Where the value at `path`, or the nearest mapping around it, was written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return None


def without_nulls(tree: Any) -> Any:
    """The tree without null-valued keys, at any depth. A null inside a list stays."""
    if isinstance(tree, Mapping):
        return {key: without_nulls(value) for key, value in tree.items() if value is not None}
    return [without_nulls(item) for item in tree] if isinstance(tree, list) else tree


def _merge(base: Mapping[str, Any], over: Mapping[str, Any], path: Key, origins: dict[Key, str]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
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
