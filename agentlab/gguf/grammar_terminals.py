"""What stands at the leaves of a grammar: JSON strings that match a regular expression, numbers between bounds. Pure.

Numbers go digit by digit, as a grammar cannot compare.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

MAX_REPEATS = 512  # llama.cpp refuses a grammar with 2,000 repetitions of one rule
_LAST = 0x10FFFF
_ASCII = (0x20, 0x7E)
_CLASSES = {  # of the many characters that a class holds those of ASCII
    "CATEGORY_DIGIT": [(0x30, 0x39)],
    "CATEGORY_WORD": [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
    "CATEGORY_SPACE": [(0x09, 0x0A), (0x0D, 0x0D), (0x20, 0x20)],
}
_ESCAPED = [(0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F)]  # not as they are in a JSON string
_NEVER = (0xD800, 0xDFFF)

Spans = list[tuple[int, int]]
MOST_DIGITS = 16  # of an integer, and before the point, where a bound does not ask for more


class _NotHeld(Exception):  # noqa: N818 - a state, not a fault
    """A grammar cannot say it."""


def pattern_rule(pattern: str, add_rule: Callable[[str], str]) -> str | None:
    """What stands between the quotes of a JSON string that matches; None where a grammar cannot say it.

    A grammar has no assertions but `^` at the beginning and `$` at the end, no back references and no flags. `add_rule`
    makes a rule of an expression.

    Raises:
        ValueError: it repeats something more often than llama.cpp can count.
    """
    try:
        parsed: Any = re._parser.parse(pattern)  # type: ignore[attr-defined] # the one parser there is
        if parsed.state.flags & ~re.UNICODE:
            return None
        nodes = list(parsed)
        starts = bool(nodes) and _is_anchor(nodes[0], "AT_BEGINNING", "AT_BEGINNING_STRING")
        ends = bool(nodes) and _is_anchor(nodes[-1], "AT_END", "AT_END_STRING")
        inner = nodes[1 if starts else 0 : -1 if ends else None]
        anything = add_rule(_characters([(0, _LAST)])) + "*"
        parts = ["" if starts else anything, _sequence(inner, add_rule), "" if ends else anything]
    except (re.error, _NotHeld, RecursionError, OverflowError):
        return None
    return " ".join(part for part in parts if part)


def _is_anchor(node: Any, *anchors: str) -> bool:
    return str(node[0]) == "AT" and str(node[1]) in anchors


def _sequence(nodes: Iterable[Any], add_rule: Callable[[str], str]) -> str:
    return " ".join(_node(str(op), value, add_rule) for op, value in nodes)


def _node(op: str, value: Any, add_rule: Callable[[str], str]) -> str:
    match op:
        case "LITERAL":
            return _characters([(value, value)])
        case "NOT_LITERAL":
            return _characters(_without([(value, value)], (0, _LAST)))
        case "ANY":
            return _characters(_without([(0x0A, 0x0A)], (0, _LAST)))
        case "IN":
            return _characters(_set(value))
        case "BRANCH":
            return add_rule(" | ".join(_sequence(branch, add_rule) or '""' for branch in value[1]))
        case "SUBPATTERN" if not value[1] and not value[2]:
            return add_rule(_sequence(value[3], add_rule) or '""')
        case "MAX_REPEAT" | "MIN_REPEAT":
            minimum, maximum, body = value
            bound = None if maximum == re._constants.MAXREPEAT else int(maximum)  # type: ignore[attr-defined] # as above
            if max(minimum, bound or 0) > MAX_REPEATS:
                raise ValueError(f"it repeats more than {MAX_REPEATS} times")
            if body.getwidth()[0] == 0 and bound != 1:  # llama.cpp tries every way to count what may be empty
                minimum, bound = 0, None
            return f"{add_rule(_sequence(body, add_rule) or chr(34) * 2)}{{{minimum},{'' if bound is None else bound}}}"
    raise _NotHeld


def _set(items: Iterable[Any]) -> Spans:
    """The characters of `[...]`. A negated set with a class holds those of ASCII, as a class does."""
    spans: Spans = []
    negated = classes = False
    for op, value in items:
        match str(op):
            case "NEGATE":
                negated = True
            case "LITERAL":
                spans.append((value, value))
            case "RANGE":
                spans.append((value[0], value[1]))
            case "CATEGORY":
                classes, name = True, str(value).replace("_NOT_", "_")
                spans += _CLASSES[name] if name == str(value) else _without(_CLASSES[name], _ASCII)
            case _:
                raise _NotHeld
    return _without(spans, _ASCII if classes else (0, _LAST)) if negated else spans


def _without(excluded: Spans, room: tuple[int, int]) -> Spans:
    """What is left of a room."""
    spans, position = [], room[0]
    for first, last in [*sorted(excluded), (room[1] + 1, room[1] + 1)]:
        if position < first:
            spans.append((position, min(first - 1, room[1])))
        position = max(position, last + 1)
    return spans


def _characters(spans: Spans) -> str:
    """One of these characters, as JSON writes it."""
    plain: Spans = []
    for room in spans:
        plain += [span for span in _without([*_ESCAPED, _NEVER], room) if span[0] <= span[1]]
    parts = ["[" + "".join(f"{_code(first)}-{_code(last)}" for first, last in plain) + "]"] if plain else []
    parts += [_quote(json.dumps(chr(code))[1:-1]) for code in _special(spans)]
    if not parts:
        raise _NotHeld
    return parts[0] if len(parts) == 1 else f"({' | '.join(parts)})"


def _special(spans: Spans) -> Iterator[int]:
    for first, last in _ESCAPED:
        yield from (code for code in range(first, last + 1) if _is_within(code, spans))


def _is_within(code: int, spans: Spans) -> bool:
    return any(first <= code <= last for first, last in spans)


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\x7f", "\\x7F") + '"'


def _code(point: int) -> str:
    return f"\\U{point:08X}"


def between(low: Decimal | None, high: Decimal | None, max_decimals: int) -> list[str]:
    """Alternatives for the numbers in [low, high], with up to `max_decimals` decimals; none where there is none."""
    whole_digits = max([MOST_DIGITS, *(len(str(abs(int(bound)))) + 1 for bound in (low, high) if bound is not None)])
    alternatives: list[str] = []
    for decimals in range(max_decimals + 1):
        unit, largest = Decimal(10) ** decimals, 10 ** (whole_digits + decimals) - 1
        lowest = -largest if low is None else int((low * unit).to_integral_value("ROUND_CEILING"))
        highest = largest if high is None else int((high * unit).to_integral_value("ROUND_FLOOR"))
        alternatives += [f'"-" {alternative}' for alternative in _counts(max(1, -highest), -lowest, decimals)]
        alternatives += _counts(max(0, lowest), highest, decimals)
    return alternatives


def _counts(low: int, high: int, decimals: int) -> list[str]:
    """Alternatives for the whole numbers in [low, high], with a point before the last so many digits."""
    alternatives: list[str] = []
    full: list[int] = []  # lengths of which every number counts
    for length in range(decimals + 1, max(len(str(high)), decimals + 1) + 1) if low <= high else ():
        first = 10 ** (length - 1) if length > decimals + 1 else 0
        lowest, highest = max(low, first), min(high, 10**length - 1)
        if first and (lowest, highest) == (first, 10**length - 1):
            full.append(length)
        elif lowest <= highest:
            spans = _spans(str(lowest).zfill(length), str(highest).zfill(length))
            alternatives += [
                " ".join((*span[: length - decimals], *_point(span[length - decimals :]))) for span in spans
            ]
    if full:
        head = f"[1-9] [0-9]{{{full[0] - decimals - 1},{full[-1] - decimals - 1}}}"
        alternatives.append(" ".join((head, *_point(["[0-9]"] * decimals))))
    return alternatives


def _point(digits: Sequence[str]) -> Sequence[str]:
    return ['"."', *digits] if digits else ()


def _spans(low: str, high: str) -> list[list[str]]:
    """Sequences of classes of digits that together match the numbers between two of one length."""
    other_digits = len(low) - 1
    if other_digits < 0:
        return [[]]
    if low[0] == high[0]:
        return [[f"[{low[0]}]", *span] for span in _spans(low[1:], high[1:])]
    zeros, nines, first, last = "0" * other_digits, "9" * other_digits, int(low[0]), int(high[0])
    below = [] if low[1:] == zeros else [[f"[{first}]", *span] for span in _spans(low[1:], nines)]
    above = [] if high[1:] == nines else [[f"[{last}]", *span] for span in _spans(zeros, high[1:])]
    first, last = first + bool(below), last - bool(above)
    middle = [[f"[{first}-{last}]", *["[0-9]"] * other_digits]] if first <= last else []
    return [*below, *middle, *above]
