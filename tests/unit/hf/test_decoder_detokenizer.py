"""Tokens are cut anywhere, through characters too; their text comes out whole and in time."""

from hypothesis import given
from hypothesis import strategies as st

from agentlab.hf.decoder import Detokenizer


def reader(pieces):
    """Token i is piece i of a byte-level vocabulary."""
    return Detokenizer(lambda tokens: b"".join(pieces[token] for token in tokens).decode(errors="replace"))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=20), st.lists(st.integers(0, 60)))
def test_cuts_through_characters_change_nothing(text, cuts):
    wire = text.encode()
    bounds = sorted({min(cut, len(wire)) for cut in cuts})
    pieces = [wire[a:b] for a, b in zip([0, *bounds], [*bounds, len(wire)], strict=True)]
    decode = reader(pieces)
    assert "".join([decode.feed(token) for token in range(len(pieces))]) + decode.flush() == text


def test_a_character_comes_with_its_last_byte():
    pieces = [b"a", *(bytes([byte]) for byte in "€".encode()), b"b"]
    decode = reader(pieces)
    assert [decode.feed(token) for token in range(5)] == ["a", "", "", "€", "b"]


def test_an_answer_cut_within_a_character_shows_that():
    decode = reader(["€".encode()[:2]])
    assert decode.feed(0) == ""
    assert decode.flush() == "\ufffd"


def test_bytes_that_never_become_a_character_are_not_held_back_for_ever():
    decode = reader([b"\xff"] * 100)
    assert "".join(decode.feed(token) for token in range(100))


def test_a_space_that_depends_on_the_neighbours_is_kept():
    words = ["▁Hello", "▁world", "!"]
    decode = Detokenizer(lambda tokens: "".join(words[token] for token in tokens).replace("▁", " ").removeprefix(" "))
    assert [decode.feed(token) for token in range(3)] == ["Hello", " world", "!"]
