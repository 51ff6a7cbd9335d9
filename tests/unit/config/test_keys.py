"""Dotted keys survive being written and read, whatever their parts hold."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.config.keys import child, join, split, split_prefix

PARTS = st.lists(st.text(max_size=12), min_size=1, max_size=4)


@given(PARTS)
def test_split_inverts_join(parts: list[str]) -> None:
    assert split(join(parts)) == tuple(parts)


@given(PARTS, st.text(max_size=12))
def test_a_key_ends_at_the_first_equals_sign_outside_quotes(parts: list[str], value: str) -> None:
    assert split_prefix(f"{join(parts)}={value}") == (tuple(parts), f"={value}")


@given(st.text(max_size=20))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        parts = split(text)
        assert split(join(parts)) == parts


def test_only_parts_that_need_it_are_quoted() -> None:
    assert join(["space", "training.lr", "high"]) == 'space."training.lr".high'
    assert join(["llm", "smollm2-135m"]) == "llm.smollm2-135m"


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", 'a"b', '"a', '"a"b', "a=b"])
def test_a_broken_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="key"):
        split(text)


def test_blanks_around_parts_do_not_count() -> None:
    assert split_prefix(' a . "b.c" = 3') == (("a", "b.c"), "= 3")


def test_child_looks_into_mappings_and_lists() -> None:
    assert child({"a": 1}, "a") == 1
    assert child([5, 6], "1") == 6
    assert child([5, 6], "2") is None
    assert child("text", "a") is None
