"""JSON schemas that come as data, a stranger's perhaps: they are checked, they reach nothing, and they end.

A reference to another document is refused instead of fetched, and a pattern gets a tenth of a second: there are
expressions for which a few dozen characters would take for ever. `patternProperties` is refused, too: the library
tries those patterns without a limit.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from agentlab.errors import BadRequestError

# Says where something is wrong, and what.
Problems = Iterator[tuple[str, str]]

_MOST_PROBLEMS = 8
_PATTERN_SECONDS = 0.1
_WIDTH = 200
_BY_NAME = {"properties", "$defs", "definitions", "dependentSchemas"}
_DATA = {"const", "enum", "default", "examples"}


def validator_of(schema: Mapping[str, Any]) -> Callable[[Any], Problems]:
    """What tells the problems of a value.

    Raises:
        BadRequestError: it is no JSON schema of draft 2020-12, or refers to another document.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError, ValidationError
    from jsonschema.validators import extend
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    def pattern(_: Any, expression: str, value: Any, __: Any) -> Iterator[ValidationError]:
        if isinstance(value, str) and not _matches(expression, value):
            yield ValidationError(f"{value[:40]!r} does not match {expression[:80]!r}")

    try:
        for refused in _refused(schema):
            raise BadRequestError(f"The schema of the answer holds {refused}, which is not supported.")
        Draft202012Validator.check_schema(schema)
        validator = extend(Draft202012Validator, {"pattern": pattern})(schema, registry=Registry())
        next(validator.iter_errors({}), None)  # one that goes round in a circle shows now
    except SchemaError as error:
        raise BadRequestError(f"The schema of the answer is no JSON schema: {error.message[:_WIDTH]}") from None
    except Unresolvable as error:
        raise BadRequestError(f"The schema of the answer refers to what is not there: {error}"[:_WIDTH]) from None
    except RecursionError:
        raise BadRequestError("The schema of the answer contains itself, or is nested too deeply.") from None

    def problems(value: Any) -> Problems:
        try:
            for error in islice(validator.iter_errors(value), _MOST_PROBLEMS):
                yield ".".join(str(part) for part in error.path) or "the object", error.message
        except (RecursionError, Unresolvable):
            yield "the object", "the schema cannot be applied to it"

    return problems


def _refused(node: Any) -> Iterator[str]:
    """What must not be applied: references to other documents, and patterns of names."""
    if isinstance(node, list):
        for item in node:
            yield from _refused(item)
    if not isinstance(node, Mapping):
        return
    for keyword, value in node.items():
        if keyword in ("$ref", "$dynamicRef") and not str(value).startswith("#"):
            yield f"a reference to {str(value)[:80]!r}"
        if keyword == "patternProperties":
            yield "patternProperties"
        if keyword in _BY_NAME and isinstance(value, Mapping):
            value = list(value.values())  # whose keys are names, not keywords
        if keyword not in _DATA:
            yield from _refused(value)


def _matches(expression: str, text: str) -> bool:
    """Whether a pattern is found in a text. One that takes too long, or is none, is not."""
    import regex

    try:
        return regex.search(expression, text, timeout=_PATTERN_SECONDS) is not None
    except (TimeoutError, regex.error):
        return False
