"""Regular expressions of strangers. Matching them takes a limit of time; whether they may be compiled is told here."""

import re

_MOST_EFFORT = 30_000  # less than a tenth of a second
# Escapes, classes, groups as ECMA has them and `(?i)`, numbers, and single characters. A class that does not end
# takes the rest, so that this stays linear.
_TOKENS = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*(?:\]|\Z)|\((?:\?(?:[:=!]|<[=!]?|P<|i[:)]))?|[0-9]{1,9}|.", re.DOTALL
)


def is_costly(pattern: str) -> bool:
    """Whether `regex` would take too long to compile it, or too much memory.

    Each group around a part takes it about four times, and repeats are written out, four in the time of a character.
    Groups of a kind that nobody needs may hide others, so they count as costly.
    """
    if len(pattern) > _MOST_EFFORT:
        return True
    effort, depth, before = 0, 0, ""
    for token in _TOKENS.findall(pattern):
        if (before, token) == ("(", "?"):
            return True
        depth = min(max(0, depth + (token[0] == "(") - (token[-1] == ")" and token[0] in "()")), 10)
        effort += int(token) // 4 if token[0] in "0123456789" else len(token) * 4**depth
        before = token
    return effort > _MOST_EFFORT
