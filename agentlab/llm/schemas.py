"""JSON schemas that come as data, a stranger's perhaps: they are checked, they reach nothing, and they end.

A reference to another document is refused instead of fetched, and the patterns get a tenth of a second: there are
expressions for which a few dozen characters would take for ever, and others that take for ever to compile, which are
refused. So is `patternProperties`: the library tries those patterns without a limit. A schema may not grow beyond
measure when its own references are written out, and an answer is looked at in a bounded number of steps, because a
schema that contains itself grows with the answer.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import unquote

from agentlab.errors import BadRequestError
from agentlab.patterns import is_costly

# Says where something is wrong, and what.
Problems = Iterator[tuple[str, str]]

_MOST_PROBLEMS = 8
_PATTERN_SECONDS = 0.05
_WIDTH = 200
_LARGEST = 5_000  # schemas within a schema
_STEPS = 200_000  # keywords that are applied to one answer: about a second
_PATTERN_STEPS = _STEPS * 10  # of a second with patterns; moments below a millisecond are free
_BY_NAME = {"properties", "$defs", "definitions", "dependentSchemas"}
_DATA = {"const", "enum", "default", "examples"}
_DEFINITIONS = {"$defs", "definitions"}
_REFERENCES = ("$ref", "$dynamicRef")


def validator_of(schema: Mapping[str, Any]) -> Callable[[Any], Problems]:
    """What tells the problems of a value.

    Raises:
        BadRequestError: it is no JSON schema of draft 2020-12, refers to another document, or is too large.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import extend
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    steps = _Steps()
    try:
        _check_bounds(schema)
        Draft202012Validator.check_schema(schema)
        applied = {**Draft202012Validator.VALIDATORS, **_own_keywords(steps)}
        counted = {keyword: steps.wrap_keyword(apply) for keyword, apply in applied.items()}
        validator = extend(Draft202012Validator, counted)(schema, registry=Registry())
        next(validator.iter_errors({}), None)  # one that goes round in a circle shows now
    except SchemaError as error:
        raise BadRequestError(
            f"The schema of the answer is not a valid JSON schema: {error.message[:_WIDTH]}"
        ) from None
    except Unresolvable as error:
        raise BadRequestError(f"The schema of the answer has an unresolved reference: {error}"[:_WIDTH]) from None
    except (RecursionError, _TooManySteps):
        raise BadRequestError("The schema of the answer contains itself, or is nested too deeply.") from None

    def problems(value: Any) -> Problems:
        steps.left = _STEPS
        try:
            for error in islice(validator.iter_errors(value), _MOST_PROBLEMS):
                yield ".".join(str(part) for part in error.path) or "the object", error.message
        except (RecursionError, Unresolvable):
            yield "the object", "the schema cannot be applied to it"
        except _TooManySteps:
            yield "the object", "it takes too long to hold it against the schema"

    return problems


class _TooManySteps(Exception):  # noqa: N818 - a state, not a fault
    """The work that one answer may make is used up."""


class _Steps:
    """Counts the work that one answer makes."""

    def __init__(self) -> None:
        self.left = _STEPS

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise _TooManySteps

    def wrap_keyword(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        """What applies a keyword, counted: one step, and one for each of the values that it goes through."""

        def counting(validator: Any, keyword_value: Any, value: Any, schema: Any) -> Any:
            self.take(1 + (len(keyword_value) if isinstance(keyword_value, list | Mapping) else 0))
            return apply(validator, keyword_value, value, schema)

        return counting


def _own_keywords(steps: _Steps) -> dict[str, Callable[..., Any]]:
    """Keywords for which the library may need for ever, or the square of the number of items."""
    from jsonschema.exceptions import ValidationError

    def pattern(_: Any, expression: str, value: Any, __: Any) -> Iterator[ValidationError]:
        if isinstance(value, str) and not _matches(expression, value, steps):
            yield ValidationError(f"{value[:40]!r} does not match {expression[:80]!r}")

    def unique(_: Any, is_required: bool, value: Any, __: Any) -> Iterator[ValidationError]:
        if is_required and isinstance(value, list) and len(set(map(_canonical, value))) < len(value):
            yield ValidationError(f"{str(value)[:40]} has an item twice")

    return {"pattern": pattern, "uniqueItems": unique}


def _check_bounds(schema: Mapping[str, Any]) -> None:
    for refused in _find_refusals(schema):
        raise BadRequestError(f"The schema of the answer contains {refused}, which is not supported.")
    if _weight(schema, schema, {}) > _LARGEST:
        raise BadRequestError(
            f"The schema of the answer has more than {_LARGEST} schemas after its references are expanded.",
            hint="Use a smaller schema, or refer to definitions less often.",
        )


def _find_refusals(node: Any) -> Iterator[str]:
    """What must not be applied: references to other documents, and patterns of names."""
    if isinstance(node, list):
        for item in node:
            yield from _find_refusals(item)
    if not isinstance(node, Mapping):
        return
    for keyword, value in node.items():
        if keyword in _REFERENCES and not str(value).startswith("#"):
            yield f"a reference to {str(value)[:80]!r}"
        if keyword == "patternProperties":
            yield "patternProperties"
        if keyword == "pattern" and isinstance(value, str) and is_costly(value):
            yield f"the pattern {value[:40]!r} (too long, or too many nested groups)"
        if keyword in _BY_NAME and isinstance(value, Mapping):
            value = list(value.values())  # whose keys are names, not keywords
        if keyword not in _DATA:
            yield from _find_refusals(value)


def _weight(node: Any, root: Mapping[str, Any], weights: dict[str, int]) -> int:
    """How many schemas there are when references within the document are written out; a circle is cut after a turn."""
    if isinstance(node, list):
        return sum(_weight(item, root, weights) for item in node)
    if not isinstance(node, Mapping):
        return 0
    weight = 1
    for keyword, value in node.items():
        if keyword in _REFERENCES and isinstance(value, str):
            if value not in weights:
                weights[value] = 1
                weights[value] = _weight(_target(value, root), root, weights)
            weight += weights[value]
        elif keyword in _BY_NAME and isinstance(value, Mapping):
            if keyword not in _DEFINITIONS:  # they count where they are referred to
                weight += _weight(list(value.values()), root, weights)
        elif keyword not in _DATA:
            weight += _weight(value, root, weights)
    return weight


def _target(reference: str, root: Mapping[str, Any]) -> Any:
    """What a JSON pointer such as `#/$defs/a` leads to; None for a name, and where nothing is."""
    node: Any = root
    if reference != "#" and not reference.startswith("#/"):
        return None
    for part in unquote(reference[1:]).split("/")[1:]:
        try:
            node = node[int(part)] if isinstance(node, list) else node[part.replace("~1", "/").replace("~0", "~")]
        except (LookupError, ValueError, TypeError):
            return None
    return node


def _canonical(value: Any) -> str:
    """The same text for values that JSON Schema takes for equal, as 1 and 1.0 are."""
    return json.dumps(_with_integers(value), sort_keys=True)


def _with_integers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_integers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_integers(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _matches(expression: str, text: str, steps: _Steps) -> bool:
    """Whether a pattern is found in a text. One that takes too long, or is none, is not."""
    import regex

    start = time.monotonic()
    try:
        return regex.search(expression, text, timeout=_PATTERN_SECONDS) is not None
    except (TimeoutError, OverflowError, regex.error):
        return False
    finally:
        steps.take(int((time.monotonic() - start) * 1000) * _PATTERN_STEPS // 1000)
