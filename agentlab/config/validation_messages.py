"""Pydantic's complaints as plain sentences about keys of a config. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from agentlab.config.fields import below, is_tagged, known_keys
from agentlab.config.keys import Key, child, join
from agentlab.config.overrides import Layer

_LONGEST_VALUE = 60
_SECRET_NAME = re.compile(r"key|token|secret|password|credential|authorization", re.IGNORECASE)

_KINDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    "int_parsing_size": "a smaller whole number",
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    "finite_number": "a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "text",
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), "a mapping"),
}
_LIMITS = {
    "greater_than": ("gt", "above {}"),
    "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "below {}"),
    "less_than_equal": ("le", "at most {}"),
    "multiple_of": ("multiple_of", "a multiple of {}"),
    "string_too_short": ("min_length", "text of at least {} characters"),
    "string_too_long": ("max_length", "text of at most {} characters"),
    "string_pattern_mismatch": ("pattern", "text that matches {}"),
    "too_short": ("min_length", "at least {} entries long"),
    "too_long": ("max_length", "at most {} entries long"),
}


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """What is wrong at a key. `branch` is the union member that said so, with the place of the union."""

    path: Key
    raw: Mapping[str, Any]
    branch: tuple[Key, str] | None


def problems(error: ValidationError, model: type[BaseModel], layer: Layer, label: str) -> list[str]:
    """One line per wrong key: `file:line:column: key: sentence`, in the order of the config model."""
    complaints = [dict(raw) for raw in error.errors(include_url=False)]
    located = [_locate(raw, model, layer.data) for raw in complaints if not _echoes(raw)]
    groups: dict[Key, list[ConfigProblem]] = {}
    for problem in _without_rival_branches(located):
        groups.setdefault(problem.path, []).append(problem)
    lines = []
    for path, group in groups.items():
        sentence = _sentence(group, model, layer.data)
        where = layer.origin(path) or label
        lines.append(f"{where}: {join(path)}: {sentence}" if path else f"{where}: {sentence}")
    return list(dict.fromkeys(lines))


def complaint(problem: Mapping[str, Any]) -> str:
    """One of pydantic's complaints about what is no config, with the place that it is about."""
    where = ".".join(map(str, problem["loc"])) or "the whole"
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}"


def display_value(value: Any, path: Key = ()) -> str:
    """A value in a message: short, and never one that may be a key."""
    if path and _SECRET_NAME.search(path[-1]):
        return "the value given"
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _echoes(raw: Mapping[str, Any]) -> bool:
    """Whether a list is called too short only because its elements are wrong, which is told by itself."""
    return raw["type"] == "too_short" and len(raw["input"]) >= int(raw["ctx"]["min_length"])


def _locate(raw: dict[str, Any], model: type[BaseModel], data: Any) -> ConfigProblem:
    """Walk pydantic's location through the config's tree; what is not in the tree is the name of a union member."""
    path: list[str] = []
    branch: tuple[Key, str] | None = None
    annotations: list[Any] = [model]
    steps, tagged = list(raw["loc"]), False
    while steps:
        step = str(steps.pop(0))
        if not tagged and any(is_tagged(annotation) for annotation in annotations):
            tagged = True  # this step is the tag, even where a key has the same name
            continue
        last_missing = raw["type"] == "missing" and not steps
        if not _holds(data, step) and not last_missing:
            branch = branch or (tuple(path), step)
            continue
        annotations, data, tagged = below(annotations, step, data), child(data, step), False
        path.append(step)
    if raw["type"] == "union_tag_invalid" and isinstance(data, Mapping):
        path.append(_discriminator(raw))
    return ConfigProblem(tuple(path), raw, branch)


def _holds(data: Any, step: str) -> bool:
    if isinstance(data, list):
        return step.isdecimal() and int(step) < len(data)
    return isinstance(data, Mapping) and step in data


def _without_rival_branches(located: Sequence[ConfigProblem]) -> list[ConfigProblem]:
    """Of a union's members, keep the one that was meant: complaints inside the value beat 'is no such thing at all'."""
    rivals: dict[Key, list[ConfigProblem]] = {}
    for problem in located:
        if problem.branch:
            rivals.setdefault(problem.branch[0], []).append(problem)
    meant_members = {site: _meant_member(site, members) for site, members in rivals.items()}
    return [p for p in located if not p.branch or meant_members[p.branch[0]] in (None, p.branch[1])]


def _meant_member(site: Key, rivals: Sequence[ConfigProblem]) -> str | None:
    """The member with the fewest complaints among those that accept the value's kind; None when no member does."""
    members: dict[str, list[ConfigProblem]] = {}
    for problem in rivals:
        members.setdefault(problem.branch[1] if problem.branch else "", []).append(problem)
    inside = {name: problems for name, problems in members.items() if not _has_wrong_kind(site, problems)}
    return min(inside, key=lambda name: len(inside[name])) if inside else None


def _has_wrong_kind(site: Key, problems: Sequence[ConfigProblem]) -> bool:
    return any(problem.path == site and problem.raw["type"] in _KINDS for problem in problems)


def _sentence(group: Sequence[ConfigProblem], model: type[BaseModel], data: Any) -> str:
    expected = list(dict.fromkeys(text for problem in group if (text := _expectation(problem.raw))))
    if expected:
        return f"must be {' or '.join(expected)}, not {display_value(group[0].raw['input'], group[0].path)}"
    return "; ".join(dict.fromkeys(_describe_problem(problem, model, data) for problem in group))


def _expectation(raw: Mapping[str, Any]) -> str | None:
    """The end of 'must be ...', for complaints of that form."""
    kind, context = raw["type"], raw.get("ctx", {})
    if kind in _KINDS:
        return _KINDS[kind]
    if kind in _LIMITS:
        name, form = _LIMITS[kind]
        limit = context[name]
        return form.format(f"{limit:g}" if isinstance(limit, float) else limit)
    if kind in ("literal_error", "enum"):
        return str(context["expected"])
    return None


def _describe_problem(problem: ConfigProblem, model: type[BaseModel], data: Any) -> str:
    raw, path = problem.raw, problem.path
    match raw["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return _unknown("key", path[-1], known_keys(model, data, path[:-1]))
        case "union_tag_not_found":
            return f"{_discriminator(raw)} is required"
        case "union_tag_invalid":
            known_tags = [tag.strip("'") for tag in raw["ctx"]["expected_tags"].split(", ")]
            return _unknown(f"{_discriminator(raw)} {raw['ctx']['tag']!r}", raw["ctx"]["tag"], known_tags)
        case "value_error":
            return str(raw["msg"]).removeprefix("Value error, ")
    message = str(raw["msg"])
    return message[:1].lower() + message[1:]


def _discriminator(raw: Mapping[str, Any]) -> str:
    return str(raw["ctx"]["discriminator"]).strip("'")


def _unknown(subject: str, name: str, known_names: Sequence[str]) -> str:
    near = get_close_matches(name, known_names, n=1, cutoff=0.6)
    if near:
        return f"unknown {subject}; did you mean {near[0]}?"
    return f"unknown {subject}; known: {', '.join(known_names)}" if known_names else f"unknown {subject}"
