"""Scores an answer to an item. Pure: the same text always gets the same score.

Rules that an answer has to follow to the letter:

words     exactly so many words                 contains  a word, whatever its case
lines     exactly so many lines that are not empty   avoids    the answer does without this letter or word
starts    the first word                        case      lower or upper, throughout
ends      the last character or word            commas    exactly so many commas
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any

from agentlab.answers import extract
from agentlab.answers.compare import same_fields, same_results
from agentlab.tasks.expression import Refused, evaluate
from agentlab.tasks.items import CheckerName, TaskItem

_MOST_REASONS = 3
_SHOWN = 80
_OUTER = "\"'`*_“”‘’ \t\n"


@dataclass(frozen=True, slots=True)
class Checked:
    """`score` is in [0, 1], None where only a judge can tell. `valid` is about JSON, None where none was asked for."""

    score: float | None
    reason: str
    valid: bool | None = None


def check(item: TaskItem, text: str) -> Checked:
    """The score of an answer, and what was wrong with it."""
    return _CHECKERS[item.checker](item, text)


def _verdict(right: bool, expected: Any, answer: Any) -> Checked:
    if right:
        return Checked(1.0, "")
    return Checked(0.0, "no answer found" if answer in (None, "") else f"{str(answer)[:_SHOWN]}, not {expected}")


def _number(item: TaskItem, text: str) -> Checked:
    answer = extract.last_number(text)
    return _verdict(answer is not None and answer == Decimal(str(item.expected)), item.expected, answer)


def _text(item: TaskItem, text: str) -> Checked:
    answer = extract.short_answer(text)
    return _verdict(answer == item.expected, item.expected, answer)


def _choice(read: Callable[[str, Sequence[str]], str | None]) -> Callable[[TaskItem, str], Checked]:
    def check_choice(item: TaskItem, text: str) -> Checked:
        answer = read(text, item.expected["among"])
        return _verdict(answer == item.expected["right"], item.expected["right"], answer)

    return check_choice


def _fields(item: TaskItem, text: str) -> Checked:
    """All fields right, or nothing: half an extraction cannot be used."""
    answer = extract.first_object(extract.final_part(text))
    if answer is None:
        return Checked(0.0, "no JSON object", valid=False)
    if wrong := _problems(answer, item):
        return Checked(0.0, "; ".join(wrong), valid=False)
    differing = [name for name, value in item.expected.items() if not same_fields(answer.get(name), value)]
    return Checked(0.0 if differing else 1.0, f"wrong: {', '.join(differing)}" if differing else "", valid=True)


def _problems(answer: dict[str, Any], item: TaskItem) -> list[str]:
    from jsonschema import Draft202012Validator

    errors = Draft202012Validator(item.schema or {}).iter_errors(answer)
    return [error.message[:_SHOWN] for error in islice(errors, _MOST_REASONS)]


def _expression(item: TaskItem, text: str) -> Checked:
    """Right in every case, or wrong."""
    source = extract.code(extract.final_part(text))
    for arguments, expected in item.expected["cases"]:
        try:
            outcome = evaluate(source, dict(zip(item.expected["names"], arguments, strict=True)))
        except Refused as refused:
            return Checked(0.0, str(refused)[:_SHOWN])
        if not same_results(outcome, expected):
            return Checked(0.0, f"{str(outcome)[:_SHOWN]} for {arguments}, not {expected}")
    return Checked(1.0, "")


def _rules(item: TaskItem, text: str) -> Checked:
    answer = extract.final_part(text)
    if not answer:
        return Checked(0.0, "no answer found")
    failed = broken(answer, item.expected)
    return Checked(0.0 if failed else 1.0, f"violates: {', '.join(failed)}" if failed else "")


def _check_answered(item: TaskItem, text: str) -> Checked:
    del item
    return Checked(None, "") if extract.final_part(text) else Checked(0.0, "no answer found")


_CHECKERS: Mapping[CheckerName, Callable[[TaskItem, str], Checked]] = {
    "number": _number,
    "text": _text,
    "letter": _choice(extract.letter),
    "label": _choice(extract.label),
    "fields": _fields,
    "expression": _expression,
    "rules": _rules,
    "judged": _check_answered,
}


def broken(text: str, rules: list[dict[str, Any]]) -> list[str]:
    """The rules that a text breaks, each as `name value`.

    `text`: an answer; marks of emphasis and quotation around the whole do not count. `rules`: `{"rule": name, "value":
    what is asked}` each.
    """
    answer = text.strip(_OUTER)
    return [f"{rule['rule']} {rule['value']}" for rule in rules if not _RULES[rule["rule"]](answer, rule["value"])]


def words(text: str) -> list[str]:
    """The words of a text: what stands between blanks and holds a letter or digit."""
    return [part for part in text.split() if any(map(str.isalnum, part))]


def _bare(word: str) -> str:
    return re.sub(r"^\W+|\W+$", "", word).casefold()


def _contains(text: str, word: str) -> bool:
    return word.casefold() in map(_bare, words(text))


def _avoids(text: str, phrase: str) -> bool:
    return phrase.casefold() not in text.casefold() if len(phrase) == 1 else not _contains(text, phrase)


def _starts(text: str, word: str) -> bool:
    text_words = words(text)
    return bool(text_words) and _bare(text_words[0]) == word.casefold()


def _ends(text: str, ending: str) -> bool:
    if not ending.isalnum():
        return text.endswith(ending)
    text_words = words(text)
    return bool(text_words) and _bare(text_words[-1]) == ending.casefold()


_RULES: Mapping[str, Callable[[str, Any], bool]] = {
    "words": lambda text, count: len(words(text)) == count,
    "lines": lambda text, count: sum(bool(line.strip()) for line in text.splitlines()) == count,
    "commas": lambda text, count: text.count(",") == count,
    "contains": _contains,
    "avoids": _avoids,
    "starts": _starts,
    "ends": _ends,
    "case": lambda text, case: text == (text.lower() if case == "lower" else text.upper()),
}
