"""Stop texts are found wherever the pieces of an answer are cut, and nothing before them is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.workers.chat import StopFinder


def read(pieces, stops):
    finder = StopFinder(stops)
    text_parts = [finder.feed(piece) for piece in pieces]
    return "".join(text_parts) + finder.remaining_text(), finder.found


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one\n\ntwo", ("\n\n",), "one"),
        ("one two", ("three",), "one two"),
        ("aab", ("ab",), "a"),  # its beginning comes twice
        ("xEND", ("END", "xE"), ""),  # the one that ends first counts
        ("x", ("",), "x"),
        ("END", ("END",), ""),
        ("almost EN", ("END",), "almost EN"),
    ],
)
def test_an_answer_ends_before_its_stop_text(text, stops, expected):
    assert read([text], stops) == (expected, expected != text)


@given(
    st.text("ab\n", max_size=20),
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 20)),
)
def test_cuts_change_nothing(text, stops, cuts):
    positions = sorted({min(cut, len(text)) for cut in cuts})
    pieces = [text[a:b] for a, b in zip([0, *positions], [*positions, len(text)], strict=True)]
    assert read(pieces, stops) == read(list(text), stops) == read([text], stops)
    answer, has_stop_text = read(pieces, stops)
    assert not any(stop in answer for stop in stops)
    assert text.startswith(answer)
    assert has_stop_text == any(stop in text for stop in stops)


def test_what_cannot_be_a_stop_text_any_more_is_not_held_back():
    finder = StopFinder(("END",))
    assert [finder.feed(piece) for piece in ("a", "E", "N", "x", "E")] == ["a", "", "", "ENx", ""]
