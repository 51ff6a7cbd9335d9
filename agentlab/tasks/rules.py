"""Rules that an answer has to follow to the letter. Pure.

words     exactly so many words                 contains  a word, whatever its case
lines     exactly so many lines that are not empty   avoids    the answer does without this letter or word
starts    the first word                        case      lower or upper, throughout
ends      the last character or word            commas    exactly so many commas
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

_OUTER = "\"'`*_“”‘’ \t\n"


def broken(text: str, rules: list[dict[str, Any]]) -> list[str]:
    """The rules that a text breaks, each as `name value`.

    Args:
        text: an answer; marks of emphasis and quotation around the whole do not count.
        rules: `{"rule": name, "value": what is asked}` each.
    """
    answer = text.strip(_OUTER)
    return [f"{rule['rule']} {rule['value']}" for rule in rules if not _RULES[rule["rule"]](answer, rule["value"])]


def words(text: str) -> list[str]:
    """The words of a text: what stands between blanks and holds a letter or digit."""
    return [part for part in text.split() if any(letter.isalnum() for letter in part)]


def _bare(word: str) -> str:
    return re.sub(r"^\W+|\W+$", "", word).casefold()


def _contains(text: str, word: str) -> bool:
    return word.casefold() in map(_bare, words(text))


def _avoids(text: str, what: str) -> bool:
    return what.casefold() not in text.casefold() if len(what) == 1 else not _contains(text, what)


def _starts(text: str, word: str) -> bool:
    found = words(text)
    return bool(found) and _bare(found[0]) == word.casefold()


def _ends(text: str, what: str) -> bool:
    found = words(text)
    return text.endswith(what) if not what.isalnum() else bool(found) and _bare(found[-1]) == what.casefold()


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
