"""JSON schemas in the part of the language that llama.cpp's grammar converter enforces. Pure."""

from collections.abc import Mapping
from typing import Any

# llama.cpp refuses a grammar with 2,000 repetitions of one rule, and takes minutes before it dies of a billion.
MAX_REPEATS = 512
_MAX_VALUES = 256


def enforceable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same schema, narrowed where the converter would ignore or choke on a bound.

    An integer with both bounds becomes a list of its values (the converter has no rule for `minimum`), and lengths are
    cut to `MAX_REPEATS`. Whatever fits the result fits the schema.
    """
    narrowed = {key: _inside(key, value) for key, value in schema.items()}
    for key in ("maxLength", "maxItems"):
        if isinstance(narrowed.get(key), int):
            narrowed[key] = min(narrowed[key], MAX_REPEATS)
    values = _integers(schema)
    if values is not None:
        narrowed = {"enum": list(values)}
    return narrowed


def _inside(key: str, value: Any) -> Any:
    """Narrow the schemas below a keyword; under `properties` and `$defs` the keys are names, not keywords."""
    if key in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
        return {name: enforceable(one) if isinstance(one, Mapping) else one for name, one in value.items()}
    if key in ("items", "additionalProperties") and isinstance(value, Mapping):
        return enforceable(value)
    if key in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
        return [enforceable(one) if isinstance(one, Mapping) else one for one in value]
    return value


def _integers(schema: Mapping[str, Any]) -> range | None:
    if schema.get("type") != "integer" or "enum" in schema or "const" in schema:
        return None
    low = schema.get("minimum", _plus(schema.get("exclusiveMinimum"), 1))
    high = schema.get("maximum", _plus(schema.get("exclusiveMaximum"), -1))
    if not isinstance(low, int) or not isinstance(high, int) or not 0 <= high - low < _MAX_VALUES:
        return None
    return range(low, high + 1)


def _plus(bound: Any, step: int) -> int | None:
    return bound + step if isinstance(bound, int) else None
