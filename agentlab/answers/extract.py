"""What a model's text says: its number, its letter, its label, its code, its JSON. Pure.

The text is hostile input: it is cut to a length, every pattern takes linear time, and nothing in it is run.
An extractor returns the one answer that the text commits to, or None: it never tries until something fits.
"""

import json
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, NoReturn

MOST_TEXT = 65_536  # characters, from the end: that is where answers stand
_MOST_STARTS = 32  # opening braces that are tried
_LONGEST_NUMBER = 64
_FENCE = "```"
_BOXED = "\\boxed{"
_STATED = re.compile(
    r"(?i)\b(?:answer|result|output|word|date|day|string|label|category)(?:[ \t*]{0,4}(?:is|was)\b|[ \t*]{0,4}[:=])"
)
# No digits inside a word, and a sign only where nothing ends before it: 5-7 is no -7.
_NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:(?:\d{1,3}(?:,\d{3}){1,8}(?!\d|,\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,2}(?!\w))?"
)
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_QUOTES = "\"'`*_“”‘’«» \t"


def final_part(text: str) -> str:
    """The answer without the thinking aloud before it; empty if the thinking never ended."""
    return text[-MOST_TEXT:].rpartition("</think>")[2].partition("<think>")[0].strip()


def find_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{...}`; None without one that is closed."""
    start = text.rfind(_BOXED)
    if start < 0:
        return None
    depth = 1
    for position in range(start + len(_BOXED), len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if not depth:
            return text[start + len(_BOXED) : position].strip()
    return None


def find_stated(text: str) -> str | None:
    """The rest of the line after the last `answer:`, `the answer is` or the like; the next line if that is empty."""
    ends = [match.end() for match in _STATED.finditer(text)]
    if not ends:
        return None
    lines = text[ends[-1] :].lstrip(" \t*:=").splitlines()
    return next((line.strip() for line in lines if line.strip(_QUOTES) and not line.startswith(_FENCE)), None)


def code(text: str) -> str:
    """The last code fence without its language, or the only span of inline code; the whole text without either."""
    parts = text.split(_FENCE)
    if len(parts) > 1:
        body = parts[-2] if len(parts) % 2 else parts[-1]  # the last fence may be open
        first_line, newline, other_lines = body.partition("\n")
        return (other_lines if newline and re.fullmatch(r"[\w+#.-]{0,20}\s*", first_line) else body).strip()
    spans = text.split("`")
    return (spans[1] if len(spans) == 3 else text).strip()


def short_answer(text: str) -> str:
    """A word, name or date, without quotes and full stop: boxed, stated, or last on the last line (after `:`, `is`)."""
    part = final_part(text)
    answer = find_boxed(part) or find_stated(part)
    if answer is None:
        lines = [line for line in code(part).splitlines() if line.strip(_QUOTES)]
        answer = re.split(r": | is ", lines[-1] if lines else "")[-1]
    return answer.strip(_QUOTES).removesuffix(".").strip(_QUOTES)


def last_number(text: str) -> Decimal | None:
    """The number that a text ends on: boxed, stated (after its last equals sign), or the last one in the text.

    Thousands separators are read, units and currencies are passed over.
    """
    part = final_part(text).replace("\u2212", "-").replace("\u202f", ",")
    box = find_boxed(part)
    if box is not None:
        return _first_number(box)
    statement = find_stated(part)
    if statement is not None and (number := _first_number(statement.rpartition("=")[2])) is not None:
        return number
    numbers = [match.group() for match in _NUMBER.finditer(part)]
    return _decimal(numbers[-1]) if numbers else None


def _first_number(text: str) -> Decimal | None:
    match = _NUMBER.search(text)
    return None if match is None else _decimal(match.group())


def _decimal(digits: str) -> Decimal | None:
    return Decimal(digits.replace(",", "")) if len(digits) <= _LONGEST_NUMBER else None


def letter(text: str, letters: Sequence[str]) -> str | None:
    """Which of these capital letters a text chooses; None if it chooses none, or several."""
    part = final_part(text)
    letter_class = "".join(re.escape(choice) for choice in letters)
    for statement in (find_boxed(part), find_stated(part), part):
        if statement is None:
            continue
        bare = statement.strip(_QUOTES + "().:")
        if bare in letters:
            return bare
        # (B), B), B: and B. choose
        marked_letters = re.findall(rf"(?<!\w)\(?([{letter_class}])(?:\)|:|\.(?!\w)|\*)", statement)
        if len(set(marked_letters)) == 1:
            return str(marked_letters[0])
    # a capital A before a word is an article
    lone_letters = re.findall(rf"(?<![\w'])([{letter_class}])(?![\w'])(?<!A(?= [a-z])(?! (?:or|and|is)\b))", part)
    return str(lone_letters[0]) if len(set(lone_letters)) == 1 else None


def label(text: str, labels: Sequence[str]) -> str | None:
    """Which of these labels a text chooses, whatever its case; None if it chooses none, or several.

    A label that is denied is not chosen: "not positive" names nothing. Nor is one inside a longer one.
    """
    part = final_part(text)
    lines = [line for line in part.splitlines() if line.strip()]
    longest_first = sorted(labels, key=len, reverse=True)
    alternatives = "|".join(f"({re.escape(label)})" for label in longest_first)
    label_pattern = re.compile(rf"(?<!\w)(?<!not )(?<!n't )(?<!never )(?:{alternatives})(?!\w)", re.IGNORECASE)
    for statement in (find_boxed(part), find_stated(part), part, lines[-1] if lines else None):
        groups = {group for match in label_pattern.finditer(statement or "") if (group := match.lastindex)}
        if len(groups) == 1:
            return longest_first[groups.pop() - 1]
    return None


def value_of(text: str) -> Any:
    """The JSON value that a text is, alone or in a code fence.

    Raises:
        ValueError: it is none, or one that is too long or nested too deeply.
    """
    if len(text) > MOST_TEXT:
        raise ValueError(f"longer than {MOST_TEXT:,} characters")
    try:
        return _parse_json(text)
    except ValueError:
        return _parse_json(code(final_part(text)))


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid JSON")


def first_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in the first 65,536 characters of a text, that in a code fence first; None without one."""
    text = text[:MOST_TEXT]
    return next(_objects(text.partition(_FENCE)[2]), None) or next(_objects(text), None)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder(parse_constant=_refuse)
    start = -1
    for _ in range(_MOST_STARTS):
        start = text.find("{", start + 1)
        if start < 0:
            return
        try:
            value, _end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        yield value


def pointer_problem(pointer: str) -> str | None:
    """Why a text is no JSON pointer (RFC 6901, section 3); None when it is one."""
    if pointer and not pointer.startswith("/"):
        return "a JSON pointer must begin with /, as in /vote"
    if re.search(r"~(?![01])", pointer):
        return "in a JSON pointer, write ~0 for ~ and ~1 for /"
    return None


def resolve_pointer(value: Any, pointer: str) -> tuple[Any, bool]:
    """What a JSON pointer leads to (RFC 6901, section 4), and whether anything is there."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(value):
            value = value[int(key)]
        else:
            return None, False
    return value, True
