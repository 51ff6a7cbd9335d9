"""Tables on a terminal: no word is broken, and what does not fit side by side is stacked."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agentlab.runs.document import Table
from cli.layout import column_widths, stack_rows, wrap_cell
from cli.screen import Screen

WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=12), max_size=8).map(" ".join)


def tables(columns: int) -> st.SearchStrategy[Table]:
    row = st.tuples(*[WORDS] * columns)
    return st.builds(Table, st.tuples(*[st.text("abc", min_size=1, max_size=9)] * columns), st.lists(row, max_size=5))


def printed(table: Table, width: int) -> str:
    out = Console(file=io.StringIO(), width=width)
    Screen()._table(out, table)
    return out.file.getvalue()  # type: ignore[attr-defined] # the file above


@given(st.integers(1, 6).flatmap(tables), st.integers(0, 200))
def test_columns_hold_their_longest_words_and_fill_no_more_than_there_is(table: Table, available: int) -> None:
    widths = column_widths(table, available)
    longest = []
    for index, column in enumerate(table.columns):
        words = " ".join([column, *(row[index] for row in table.rows)]).split()
        longest.append(max(map(len, words)))
    if sum(longest) > available:
        assert widths is None
    else:
        assert widths is not None
        assert all(width >= word for width, word in zip(widths, longest, strict=True))
        assert sum(widths) <= available


@given(st.integers(1, 6).flatmap(tables), st.sampled_from((30, 80, 120)))
def test_no_word_is_broken_or_lost(table: Table, width: int) -> None:
    words = printed(table, width).split()
    for row in table.rows:
        for cell in row:
            assert set(cell.split()) <= set(words)


def test_a_short_column_is_not_folded_for_a_long_one() -> None:
    table = Table(("name", "note"), [("two words", "a long note " * 20)])
    assert column_widths(table, 60) == [9, 51]


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("67% [35%, 88%]", 10, ["67%", "[35%, 88%]"]),
        ("+0.1 [-2.0, +1.0] more", 20, ["+0.1 [-2.0, +1.0]", "more"]),
        ("one two\n\nthree", 4, ["one", "two", "", "three"]),
        ("[ no interval", 4, ["[ no", "interval"]),
        ("", 4, [""]),
    ],
)
def test_an_interval_is_one_word(text: str, width: int, lines: list[str]) -> None:
    assert wrap_cell(text, width).split("\n") == lines


def test_rows_that_do_not_fit_are_stacked_under_their_first_cells() -> None:
    table = Table(("", "recipe", "speed"), [("r1", "a" * 40, ""), ("r2", "b" * 40, "1.2x")])
    assert list(stack_rows(table)) == [
        ("r1", [("recipe", "a" * 40)]),
        ("r2", [("recipe", "b" * 40), ("speed", "1.2x")]),
    ]
    lines = [line.rstrip() for line in printed(table, 50).splitlines()]
    assert lines[:2] == ["r1", f"  recipe  {'a' * 40}"]


@pytest.mark.parametrize("width", [80, 200])
def test_a_table_of_two_columns_is_never_stacked(width: int) -> None:
    text = printed(Table(("plan", ""), [("base", "x" * 300)]), width)
    assert text.count("x") == 300
    assert text.startswith("plan")
