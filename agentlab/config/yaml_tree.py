"""YAML as plain data with the place of every key, and back to text.

Read is the core schema of YAML 1.2, in which `1e-3` is a number, `no` is text and `12:30` is not 750. Only text,
numbers, truth values, null, lists and mappings with text keys exist; size, depth and number of nodes are bounded.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from agentlab.config.keys import Key, join
from agentlab.errors import ConfigError
from agentlab.files import open_file

MAX_BYTES = 256 * 1024  # the reader is pure Python: three seconds at worst
MAX_NODES = 20_000  # aliases counted as often as they are used
MAX_DEPTH = 32
_LONGEST_NUMBER = 100  # digits; Python refuses to show some thousands, and no float holds more than 309

_TAG = "tag:yaml.org,2002:"
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)
_INT = re.compile(r"[-+]?[0-9]+$|0o[0-7]+$|0x[0-9a-fA-F]+$")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
_NULL = re.compile(r"(?:~|null|Null|NULL|)$")

# What PyYAML says, and what it means. The first match counts.
_MEANING = (
    (r"character '\t'", "indent with spaces, not tabs"),
    ("cannot start any token", "a value cannot start with this character; put it in quotes"),
    ("mapping values are not allowed", "unexpected colon; quote the text, or check the indentation"),
    ("could not find expected ':'", "a key has no colon"),
    ("expected <block end>", "the indentation does not match the lines above, or a bracket or quote is not closed"),
    ("unexpected end of stream", "a quote is not closed"),
    ("expected ',' or", "a bracket is not closed, or a comma is missing"),
    ("found undefined alias", "this alias has no anchor"),
    ("found another document", "a config must be one document; a second one starts here"),
)


@dataclass(frozen=True, slots=True)
class YamlPlace:
    """Where a key or list element begins; both numbers count from 1."""

    line: int
    column: int

    @classmethod
    def of(cls, mark: yaml.Mark) -> "YamlPlace":
        """PyYAML counts from 0."""
        return cls(mark.line + 1, mark.column + 1)

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class YamlTree:
    """Plain data, and where each key or list element begins."""

    data: dict[str, Any]
    places: dict[Key, YamlPlace]


def read_text(path: Path, label: str) -> str:
    """The text of a config file.

    Raises:
        ConfigError: no such file, not readable, too large, or not UTF-8.
    """
    try:
        with open_file(path) as file:
            content = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"There is no config file {label}.", hint="`agentlab configs list` shows the presets."
        ) from error
    except OSError as error:
        raise ConfigError(f"The config file {label[:200]} cannot be read: {error.strerror}.") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"The config file {label} is larger than {MAX_BYTES // 1024} KiB.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{label}:{line}: this is not UTF-8 text.") from error


def read_yaml(text: str, label: str) -> YamlTree:
    """Parse a config, whose root is a mapping; an empty text is an empty mapping.

    Raises:
        ConfigError: not YAML, or not a config; names `label`, line and column.
    """
    node = _compose(text, label)
    if node is None:
        return YamlTree({}, {})
    if not isinstance(node, yaml.MappingNode):
        raise _error(label, node.start_mark, "a config must be a mapping of keys to values")
    builder = _TreeBuilder(label)
    return YamlTree(builder.value(node, ()), builder.places)


def read_value(text: str, label: str) -> Any:
    """Parse a single value, such as the right side of `--set key=value`.

    Raises:
        ConfigError: not YAML.
    """
    node = _compose(text, label)
    return None if node is None else _TreeBuilder(label).value(node, ())


def write_yaml(tree: Any) -> str:
    """The text of plain data: one line per scalar, keys in their order. `read_yaml` is its inverse."""
    return str(
        yaml.dump(tree, Dumper=_Writer, sort_keys=False, allow_unicode=True, default_flow_style=False, width=math.inf)
    )


class _YamlReader(yaml.SafeLoader):
    """Composes nodes, no deeper than allowed."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}  # type: ignore[misc] # PyYAML's stubs omit ClassVar
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One node; refuses nesting before Python's own stack does."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call] # PyYAML has no types
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Writer(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True

    def text(self, value: str) -> yaml.Node:
        """Several lines are written as such; characters that YAML takes for blanks or breaks are escaped."""
        style = None
        if not value.isprintable():
            block = value.replace("\n", "").isprintable() and not value.startswith((" ", "\n"))
            style = "|" if block else '"'
        return self.represent_scalar(f"{_TAG}str", value, style=style)


_Writer.add_representer(str, _Writer.text)
for _loader in (_YamlReader, _Writer):
    _loader.add_implicit_resolver(f"{_TAG}bool", _BOOL, list("tTfF"))
    _loader.add_implicit_resolver(f"{_TAG}int", _INT, list("-+0123456789"))
    _loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))
    _loader.add_implicit_resolver(f"{_TAG}null", _NULL, ["~", "n", "N", ""])


def _compose(text: str, label: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_YamlReader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{label}:{line}: a control character is not allowed in YAML.") from error
    except yaml.MarkedYAMLError as error:
        problem = error.problem or "the file cannot be read"
        meaning = next((plain for sign, plain in _MEANING if sign in problem), problem)
        raise _error(label, error.problem_mark or error.context_mark, meaning) from error
    except (ValueError, OverflowError) as error:  # PyYAML on an escape such as \UFFFFFFFF
        raise ConfigError(f"{label}: an escape sequence is invalid.") from error


def _error(label: str, mark: yaml.Mark | None, sentence: str) -> ConfigError:
    where = f"{label}:{YamlPlace.of(mark)}" if mark else label
    return ConfigError(f"{where}: {sentence}.")


class _TreeBuilder:
    def __init__(self, label: str) -> None:
        self.label = label
        self.places: dict[Key, YamlPlace] = {}
        self._nodes = 0

    def value(self, node: yaml.Node, path: Key) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:  # an alias may repeat, or contain itself
            raise _error(self.label, node.start_mark, f"there are more than {MAX_NODES} values or {MAX_DEPTH} levels")
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self._element(item, (*path, str(i))) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        raise _error(self.label, node.start_mark, f"the tag {node.tag} is not supported; only plain data is")

    def _element(self, node: yaml.Node, path: Key) -> Any:
        self.places[path] = YamlPlace.of(node.start_mark)
        return self.value(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Key) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            key_path = (*path, key)
            if key in mapping:
                first = self.places[key_path].line
                raise _error(self.label, key_node.start_mark, f"{join(key_path)} is given twice; first on line {first}")
            self.places[key_path] = YamlPlace.of(key_node.start_mark)
            mapping[key] = self.value(value_node, key_path)
        return mapping

    def _key(self, node: yaml.Node) -> str:
        """A key is its text, as written: `on` and `1` are names here."""
        if not isinstance(node, yaml.ScalarNode):
            raise _error(self.label, node.start_mark, "a key must be a single value")
        if node.value == "<<":
            raise _error(self.label, node.start_mark, "merge keys are not supported; use `extends`")
        return self._encodable(node)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        try:
            match node.tag.removeprefix(_TAG):
                case "str":
                    return self._encodable(node)
                case "int" | "float" if len(text) > _LONGEST_NUMBER:
                    raise ValueError("too long")
                case "int":
                    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
                case "float":
                    return self._finite(node)
                case "bool":
                    return text.lower() == "true"
                case "null":
                    return None
        except ValueError as error:
            raise _error(self.label, node.start_mark, "this is not a valid number") from error
        raise _error(self.label, node.start_mark, f"the tag {node.tag} is not supported; only plain data is")

    def _finite(self, node: yaml.ScalarNode) -> float:
        value = math.nan if node.value.lstrip("+-").lower() in (".inf", ".nan") else float(node.value)
        if not math.isfinite(value):
            raise _error(self.label, node.start_mark, "numbers must be finite; `null` resets a key to its default")
        return value

    def _encodable(self, node: yaml.ScalarNode) -> str:
        try:
            node.value.encode()
        except UnicodeEncodeError as error:
            raise _error(self.label, node.start_mark, "the text contains an unpaired surrogate") from error
        return str(node.value)
