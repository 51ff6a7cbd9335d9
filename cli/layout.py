"""How a table fits a terminal: the widths of its columns, so that no word is broken, or its rows stacked. Pure."""

import re
from collections.abc import Iterator, Sequence

from agentlab.runs.document import Table

_WORD = re.compile(r"\[[^][\n]{1,30}\]\S*|\S+")  # an interval is one word: [-1.2, +3.4]


def column_widths(table: Table, available: int) -> list[int] | None:
    """Characters for each column; None if the longest words do not fit beside each other.

    `available` counts no gaps. Each column has at least its longest word. What is left goes first to the columns that
    lack least, so that a column of long sentences takes the rest and no short one is folded for it.
    """
    columns = [[table.columns[index], *(row[index] for row in table.rows)] for index in range(len(table.columns))]
    widths = [max(map(_longest_word, cells)) for cells in columns]
    spare = available - sum(widths)
    if spare < 0:
        return None
    lacking = {index: max(map(len, cells)) - widths[index] for index, cells in enumerate(columns)}
    waiting = len(columns)
    for index in sorted(lacking, key=lambda index: lacking[index]):
        extra = min(lacking[index], spare // waiting)
        widths[index] += extra
        spare -= extra
        waiting -= 1
    return widths


def stack_rows(table: Table) -> Iterator[tuple[str, Sequence[tuple[str, str]]]]:
    """Each row as a title, its first cell, and the other cells that say something, each with its heading."""
    first, *others = table.columns
    for title, *cells in table.rows:
        yield (f"{first} {title}".strip(), [(name, cell) for name, cell in zip(others, cells, strict=True) if cell])


def wrap_cell(text: str, width: int) -> str:
    """The text in lines of at most `width` characters; words and intervals stay whole."""
    lines: list[str] = []
    for line in text.split("\n"):
        current = ""
        for word in _WORD.findall(line):
            if current and len(current) + 1 + len(word) > width:
                lines.append(current)
                current = ""
            current = f"{current} {word}" if current else word
        lines.append(current)
    return "\n".join(lines)


def _longest_word(text: str) -> int:
    return max(map(len, _WORD.findall(text)), default=0)
