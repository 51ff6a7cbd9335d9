"""What templates compute with: filters and tests, jinja's own where they are harmless, and the budget of a rendering.

A single operation is bounded by the sizes of what goes in and comes out; how many there may be, by the budget.
"""

import json
import operator
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

from jinja2 import Environment, Undefined, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.filters import do_indent, do_round, do_truncate, make_attrgetter
from jinja2.tests import TESTS as JINJA_TESTS

MOST_TEXT = 4 << 20  # characters of any text, the rendered one included
MOST_STEPS = 500_000  # a node, an element or 64 characters each; about half a second
MOST_ELEMENTS = 100_000  # of a list that is made from a text or by range
_CHARACTERS_PER_STEP = 64
_MOST_BITS = 4_096  # of a whole number; writing it out takes the square of them
_MOST_PADDING, _MOST_TRIMMED, _MOST_DIGITS = 100, 16, 400  # characters


class RenderBudget:
    """What one rendering may still take. Charged before or at once after an operation, so that no clock is needed."""

    def __init__(self) -> None:
        self._left, self._room = MOST_STEPS, MOST_TEXT

    def steps(self, count: int) -> None:
        """Use some up; a SecurityError if there are not that many left."""
        self._left -= count
        if self._left < 0:
            raise SecurityError(f"the template exceeds {MOST_STEPS:,} steps")

    def charge_text(self, text: str) -> None:
        self._room -= len(text)
        if self._room < 0:
            raise SecurityError(f"the output exceeds {MOST_TEXT:,} characters")

    def tree(self, value: Any, weight: int = 1) -> None:
        """Charge for all that a value holds, which is plain data, before something walks through it.

        Raises:
            SecurityError: it is too much, or something that a template cannot use.
            UndefinedError: something in it is not there.
        """
        open_ = [value]
        while open_:
            node = open_.pop()
            if isinstance(node, str):
                self.steps(weight * (1 + fits(len(node)) // _CHARACTERS_PER_STEP))
                continue
            self.steps(weight * (1 + (len(node) if isinstance(node, Mapping | list | tuple) else 0)))
            if isinstance(node, Mapping):
                open_ += chain(node.keys(), node.values())
            elif isinstance(node, list | tuple):
                open_ += node
            elif isinstance(node, int):
                if node.bit_length() > _MOST_BITS:
                    raise SecurityError("a number is too large")
                self.steps(node.bit_length() // _CHARACTERS_PER_STEP)
            elif not isinstance(node, float | None):
                raise SecurityError(f"{kind(node)} cannot be used in a template")


def fits(characters: int) -> int:
    """The length of a text that is to be made, which is not too long."""
    if characters > MOST_TEXT:
        raise SecurityError(f"text of {characters:,} characters exceeds the limit of {MOST_TEXT:,}")
    return characters


def kind(value: Any) -> str:
    """What a value is, in words."""
    if isinstance(value, Undefined):
        return str(value)  # which raises UndefinedError, with its own sentence
    words = {str: "text", int: "a number", float: "a number", list: "a list", tuple: "a list", Mapping: "a mapping"}
    if value is None or isinstance(value, bool):
        return as_json(value)
    return next((word for type_, word in words.items() if isinstance(value, type_)), f"a {type(value).__name__}")


def elements_of(value: Any) -> Any:
    """A list as it is; a mapping's keys."""
    if not isinstance(value, Mapping | list | tuple):
        advice = "; turn it into a list with |lines or |split" if isinstance(value, str) else ""
        raise SecurityError(f"{kind(value)} has no elements{advice}")
    return list(value) if isinstance(value, Mapping) else value


def text_of(value: Any) -> str:
    """A text, or a number as a text."""
    if not isinstance(value, str | int | float):
        raise SecurityError(f"expected text, not {kind(value)}")
    return as_text(value)


def as_text(value: Any) -> str:
    """A value as it stands in a text: texts as they are, everything else as JSON."""
    return value if isinstance(value, str) else as_json(value)


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON, every character as itself; `indent` from 0 to 8."""
    if indent is None:
        return _JSON.encode(value)
    return json.dumps(value, ensure_ascii=False, indent=_whole_number(indent, 0, 8), default=_standard)


def _standard(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise SecurityError(f"{kind(value)} cannot be rendered in a template")


_JSON = json.JSONEncoder(ensure_ascii=False, default=_standard)


def _whole_number(value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or not low <= value <= high:
        raise SecurityError(f"expected a whole number from {low} to {high}")
    return value


def number(value: Any) -> Any:
    """The value, which has to be a number."""
    if not isinstance(value, int | float):
        raise SecurityError(f"expected a number, not {kind(value)}")
    return value


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
OPERATORS = frozenset(_ARITHMETIC)


def calculate(sign: str, left: Any, right: Any) -> Any:
    """A sum, difference, product, quotient or remainder of numbers; texts can be added, and multiplied by a number."""
    if sign == "+" and isinstance(left, str) and isinstance(right, str):
        fits(len(left) + len(right))
    elif sign == "*" and isinstance(left, str) and isinstance(right, int):
        fits(len(left) * max(0, right))
    elif isinstance(left, str) or isinstance(right, str):
        advice = "; to join values as text, use `~`" if sign == "+" else ""
        raise SecurityError(f"`{sign}` does not work on {kind(left)} and {kind(right)}{advice}")
    else:
        number(left), number(right)
    return _ARITHMETIC[sign](left, right)


def numbers(*ends: int) -> list[int]:
    """Whole numbers, as Python's range."""
    counted = range(*(number(end) for end in ends))
    if counted[MOST_ELEMENTS:]:
        raise SecurityError(f"a range may have at most {MOST_ELEMENTS:,} numbers")
    return list(counted)


def _split(text: str, separator: str | None = None) -> list[str]:
    parts = text.split(separator, MOST_ELEMENTS)
    if len(parts) > MOST_ELEMENTS:
        raise SecurityError(f"text may be split into at most {MOST_ELEMENTS:,} parts")
    return parts


def _lines(text: str) -> list[str]:
    lines = _split(text.replace("\r\n", "\n"), "\n")
    return lines[:-1] if lines[-1] == "" else lines


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    occurrences = text.count(old)
    times = occurrences if count < 0 else min(count, occurrences)
    fits(len(text) + times * max(0, len(new) - len(old)))
    return text.replace(old, new, times)


def _indent(text: str, width: int = 4, first: bool = False, blank: bool = False) -> str:
    fits(len(text) + (1 + len(text.splitlines())) * _whole_number(width, 0, _MOST_PADDING))
    return do_indent(text, width, first, blank)


@pass_environment
def _truncate(environment: Environment, text: str, length: int = 255, killwords: bool = False, end: str = "...") -> str:
    return do_truncate(environment, text, _whole_number(length, len(end), MOST_TEXT), killwords, end)


def _trim(text: str, characters: str | None = None) -> str:
    if characters is not None and len(characters) > _MOST_TRIMMED:
        raise SecurityError(f"trim takes at most {_MOST_TRIMMED} characters")
    return text.strip(characters)


def _make_converter(name: str) -> Callable[..., Any]:
    def convert(value: Any, default: Any = 0) -> Any:
        if isinstance(value, str) and len(value) > _MOST_DIGITS:
            return default
        return JINJA_FILTERS[name](value, default)

    return convert


def _round(value: Any, precision: int = 0, method: Any = "common") -> float:
    return do_round(number(value), _whole_number(precision, -20, 20), method)


@pass_environment
def _join(environment: Environment, values: Any, separator: str = "", attribute: str | int | None = None) -> str:
    parts = [as_text(part) for part in map(make_attrgetter(environment, attribute), values)]
    fits(sum(map(len, parts)) + len(separator) * max(0, len(parts) - 1))
    return separator.join(parts)


@pass_environment
def _sum(environment: Environment, values: Any, attribute: str | int | None = None) -> Any:
    return sum(map(number, map(make_attrgetter(environment, attribute), values)))


@pass_environment
def _unique(
    environment: Environment, values: Any, case_sensitive: bool = False, attribute: str | int | None = None
) -> list[Any]:
    """Compared as JSON: numbers can be chosen so that all have one hash."""
    unique_values: dict[str, Any] = {}
    for value, mark in zip(values, map(make_attrgetter(environment, attribute), values), strict=True):
        unique_values.setdefault(as_json(mark) if case_sensitive else as_json(mark).casefold(), value)
    return list(unique_values.values())


def _jinjas(*names: str, table: Mapping[str, Any] = JINJA_FILTERS) -> dict[str, Callable[..., Any]]:
    return {name: table[name] for name in names}


TEXT_FILTERS: dict[str, Callable[..., Any]] = {
    **_jinjas("capitalize", "lower", "title", "upper"),
    "endswith": lambda text, end: text.endswith(end),
    "indent": _indent,
    "lines": _lines,
    "replace": _replace,
    "split": _split,
    "startswith": lambda text, start: text.startswith(start),
    "trim": _trim,
    "truncate": _truncate,
}
LIST_FILTERS: dict[str, Callable[..., Any]] = {
    **_jinjas("map", "max", "min", "reject", "rejectattr", "select", "selectattr", "sort"),
    "join": _join,
    "list": elements_of,
    "sum": _sum,
    "unique": _unique,
}
# These touch at most one element, and `default` takes what is not there.
FREE_FILTERS = _jinjas("count", "d", "default", "first", "last", "length")
FILTERS: dict[str, Callable[..., Any]] = {
    **TEXT_FILTERS,
    **LIST_FILTERS,
    **FREE_FILTERS,
    **_jinjas("abs", "reverse"),
    "float": _make_converter("float"),
    "int": _make_converter("int"),
    "items": lambda value: [list(pair) for pair in JINJA_FILTERS["items"](value)],
    "round": _round,
    "string": as_text,
    "tojson": as_json,
}
# How much longer than a copy these take for each character or element.
WEIGHTS = {"indent": 16, "join": 4, "sort": 16, "title": 32, "tojson": 4, "unique": 8}

FREE_TESTS = ("defined", "undefined")
_TESTS = (
    *FREE_TESTS,
    *("boolean", "false", "float", "integer", "mapping", "none", "number", "sequence", "string", "true"),
    *("!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "gt", "in", "le", "lt", "ne"),
)
TESTS: dict[str, Callable[..., Any]] = {
    **_jinjas(*_TESTS, table=JINJA_TESTS),
    # jinja's own compute text % number, which formats
    "divisibleby": lambda value, by: bool(number(value) % number(by) == 0),
    "even": lambda value: bool(number(value) % 2 == 0),
    "odd": lambda value: bool(number(value) % 2 != 0),
}
