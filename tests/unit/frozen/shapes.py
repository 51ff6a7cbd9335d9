"""The names in a schema or a dataclass as dotted paths, one line each: what a reader of a file sees, and no class."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter


def list_read_paths(root: str, model: Any) -> list[str]:
    """What may stand in a file or a message that is read as `model`: keys by their aliases, choices, roles."""
    schema = TypeAdapter(model).json_schema(mode="validation", by_alias=True)
    return _list_schema_paths(root, schema)


def list_written_paths(root: str, model: Any) -> list[str]:
    """What stands in a file or an answer that is written from `model`."""
    schema = TypeAdapter(model).json_schema(mode="serialization", by_alias=True)
    return _list_schema_paths(root, schema)


def _list_schema_paths(root: str, schema: Mapping[str, Any]) -> list[str]:
    paths = set(_walk_schema(root, schema, schema.get("$defs", {}), ()))
    return sorted(paths)


def _walk_schema(
    path: str, schema: Mapping[str, Any], definitions: Mapping[str, Any], open_definitions: tuple[str, ...]
) -> Iterator[str]:
    """The paths at and below one place of a schema. A definition that holds itself is told once, and then ends."""
    reference = schema.get("$ref")
    if reference is not None:
        name = reference.rpartition("/")[2]
        if name in open_definitions:
            yield f"{path} (again)"
        else:
            yield from _walk_schema(path, definitions[name], definitions, (*open_definitions, name))
    yield from _describe_place(path, schema)
    for keyword in ("anyOf", "oneOf", "allOf"):
        for member in schema.get(keyword, ()):
            yield from _walk_schema(path, member, definitions, open_definitions)
    for name, member in schema.get("properties", {}).items():
        yield f"{path}.{name}"
        yield from _walk_schema(f"{path}.{name}", member, definitions, open_definitions)
    for member in schema.get("prefixItems", ()):
        yield from _walk_schema(f"{path}[]", member, definitions, open_definitions)
    for keyword, mark in (("items", "[]"), ("additionalProperties", ".*")):
        if isinstance(schema.get(keyword), Mapping):
            yield from _walk_schema(f"{path}{mark}", schema[keyword], definitions, open_definitions)


def _describe_place(path: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """The words that may stand at a place, and what is said of it."""
    if "const" in schema:
        yield f"{path} = {schema['const']}"
    for choice in schema.get("enum", ()):
        yield f"{path} = {choice}"
    for role in ("role", "presets"):  # what `budget_field`, `machine_field` and `preset_field` leave
        if isinstance(schema.get(role), str):
            yield f"{path} ({role} {schema[role]})"


def list_field_paths(root: str, dataclass: type) -> list[str]:
    """What `asdict` makes of an instance: the fields of a dataclass, and of those that its fields hold."""
    return sorted(set(_walk_fields(root, dataclass)))


def _walk_fields(path: str, dataclass: type) -> Iterator[str]:
    hints = get_type_hints(dataclass)
    for field in fields(dataclass):
        yield f"{path}.{field.name}"
        for field_type in _list_held_types(hints[field.name]):
            if is_dataclass(field_type):
                yield from _walk_fields(f"{path}.{field.name}", field_type)


def _list_held_types(annotation: Any) -> Iterator[type]:
    """The classes in an annotation, those in containers and unions included."""
    if get_origin(annotation) is Literal:
        return
    if get_origin(annotation) is not None:
        for argument in get_args(annotation):
            yield from _list_held_types(argument)
    elif isinstance(annotation, type):
        yield annotation


def list_key_paths(root: str, value: Any) -> list[str]:
    """The keys of plain data; the members of a list share a path."""
    return sorted(set(_walk_keys(root, value)))


def _walk_keys(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, member in value.items():
            yield f"{path}.{key}"
            yield from _walk_keys(f"{path}.{key}", member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _walk_keys(f"{path}[]", member)
