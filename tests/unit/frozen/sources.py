"""Names that stand in the source as plain strings: events and their keys, tasks, environment variables."""

import ast
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGES = ("agentlab", "cli")
# `noun.verb`, as events have it; tasks of language models, files, keys of configs and of weights. Modules are none.
_DOTTED = re.compile(r"(?!agentlab\.|cli\.|tests\.)[a-z][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)+(?<!\.py)")
_EVENT_TYPE = re.compile(r"[a-z]+\.([a-z]+|\{\})")
_VARIABLE = re.compile(r"AGENTLAB_[A-Z_]+")


@dataclass(frozen=True)
class SourceFile:
    """One module: its dotted name, and everything in it."""

    module: str
    nodes: tuple[ast.AST, ...]


def parse_sources() -> list[SourceFile]:
    """Every module of the packages, none imported."""
    files: list[SourceFile] = []
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            nodes = tuple(ast.walk(ast.parse(path.read_bytes())))
            files.append(SourceFile(".".join(parts).removesuffix(".__init__"), nodes))
    return files


def list_dotted_strings(files: Collection[SourceFile]) -> list[str]:
    """Every string of words with dots between them, wherever it stands."""
    return sorted({text for text in _walk_strings(files) if _DOTTED.fullmatch(text)})


def list_environment_variables(files: Collection[SourceFile]) -> list[str]:
    """Every variable of our own that a string names."""
    names: set[str] = set()
    for text in _walk_strings(files):
        names.update(_VARIABLE.findall(text))
    return sorted(names)


def _walk_strings(files: Collection[SourceFile]) -> Iterator[str]:
    for file in files:
        for node in file.nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def list_event_keys(files: Collection[SourceFile], writers: Collection[tuple[str, int]]) -> list[str]:
    """The keys that each type of event is written with, one line a type.

    Args:
        files: where to look.
        writers: names of functions that write an event, and the number of the argument that is its type.

    A mapping that is handed over whole is `**`: its keys are frozen where it is made, or by the fixture of earlier
    runs. A word that is only known at run time is `{}`; so is a type that a variable holds, and is left out.
    """
    constants = _read_constants(files)
    keys_of_type: dict[str, set[str]] = defaultdict(set)
    for file in files:
        for node in file.nodes:
            if isinstance(node, ast.Call):
                for event_type in _read_event_types(node, writers, constants[file.module]):
                    keys_of_type[event_type] |= {keyword.arg or "**" for keyword in node.keywords}
    return [f"{event_type}: {' '.join(sorted(keys))}".strip() for event_type, keys in sorted(keys_of_type.items())]


def _read_event_types(
    call: ast.Call, writers: Collection[tuple[str, int]], constants: Mapping[str, str]
) -> Iterator[str]:
    """The types of event that a call writes: one, or two where it depends; none where it is another call."""
    for name, number in writers:
        if _name_of_called(call) == name and len(call.args) > number:
            for event_type in _resolve_type(call.args[number], constants):
                if _EVENT_TYPE.fullmatch(event_type):
                    yield event_type


def _name_of_called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _resolve_type(node: ast.expr, constants: Mapping[str, str]) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from _resolve_type(node.body, constants)
        yield from _resolve_type(node.orelse, constants)
    elif isinstance(node, ast.JoinedStr):
        parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
        yield "".join(parts)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Name):
        yield constants.get(node.id, "{}")


def _read_constants(files: Collection[SourceFile]) -> dict[str, dict[str, str]]:
    """By module, the strings that its names stand for, those included that it imports from another module."""
    by_module: dict[str, dict[str, str]] = {}
    for file in files:
        by_module[file.module] = {}
        for node in file.nodes:
            if isinstance(node, ast.Assign):
                by_module[file.module].update(_read_assignment(node))
    seen = {module: dict(constants) for module, constants in by_module.items()}
    for file in files:
        for node in file.nodes:
            if isinstance(node, ast.ImportFrom) and node.module in by_module:
                for alias in node.names:
                    if alias.name in by_module[node.module]:
                        seen[file.module][alias.asname or alias.name] = by_module[node.module][alias.name]
    return seen


def _read_assignment(statement: ast.Assign) -> Iterator[tuple[str, str]]:
    """`NAME = "text"`, and several at once."""
    for target in statement.targets:
        names: list[ast.expr] = [target]
        values: list[ast.expr] = [statement.value]
        if isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
            names, values = target.elts, statement.value.elts
        for name, value in zip(names, values, strict=False):
            if isinstance(name, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield name.id, value.value
