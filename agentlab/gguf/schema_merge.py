"""What a JSON schema is about, and two of them put together. Pure."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

MOST_PARTS = 20_000  # a fraction of a second; references with keywords beside them are written out wherever they stand
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
TELLING = {  # without `type`, the keywords say what is meant
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
_STRICTER: Mapping[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems"), min),
}


def merge_schemas(first: Any, second: Any) -> Any:
    """What fits both schemas, as far as keywords can be put together; of others the first one's stays."""
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return first and second if isinstance(first, bool) else second and first
    both, all_of = {**second, **first}, [*first.get("allOf", []), *second.get("allOf", [])]
    for key in first.keys() & second.keys():
        first_value, second_value = first[key], second[key]
        match key:
            case "properties":
                both[key] = {
                    **first_value,
                    **{k: merge_schemas(first_value[k], v) if k in first_value else v for k, v in second_value.items()},
                }
            case "required":
                both[key] = list(dict.fromkeys([*first_value, *second_value]))
            case "type":
                both[key] = _common(types_of(first), types_of(second))
            case "enum":
                both[key] = [value for value in first_value if json_text(value) in map(json_text, second_value)]
            case _ if key in _STRICTER:
                both[key] = _STRICTER[key](first_value, second_value)
            case "items" | "additionalProperties":
                both[key] = merge_schemas(first_value, second_value)
            case "const" if json_text(first_value) != json_text(second_value):
                both["enum"] = []
            case "$ref" if first_value != second_value:
                all_of += [{key: both.pop(key)}, {key: second_value}]
            case "anyOf" | "oneOf" if first_value != second_value:
                both[key] = _pairs(first_value, second_value)
    return both | ({"allOf": all_of} if all_of else {})


def _pairs(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    if len(first) * len(second) > MOST_PARTS:
        raise ValueError("it has too many combinations")
    return [{"allOf": list(pair)} for pair in product(first, second)]


def _common(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """The types that two lists allow: an integer is a number."""
    common = [kind for kind in first if kind in second or (kind == "integer" and "number" in second)]
    return common + [kind for kind in second if kind == "integer" and "number" in first and kind not in first]


def types_of(schema: Mapping[str, Any]) -> list[str]:
    """The types that a schema names; without, those that its keywords are about."""
    kind = schema.get("type")
    if kind is None:
        implied_types = [kind for kind, keywords in TELLING.items() if schema.keys() & keywords]
        return implied_types or list(TYPES)
    return [kind] if isinstance(kind, str) else list(kind)


def kinds_of(value: Any) -> set[str]:
    """The types that a value has."""
    if value is None or isinstance(value, bool):
        return {"null" if value is None else "boolean"}
    if isinstance(value, int | float):
        return {"number", "integer"} if value == int(value) else {"number"}
    if isinstance(value, str):
        return {"string"}
    return {"array" if isinstance(value, list) else "object"}


def json_text(value: Any) -> str:
    """A value as JSON; half a character, which UTF-8 does not have, is written out."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return json.dumps(value) if any("\ud800" <= c <= "\udfff" for c in text) else text
