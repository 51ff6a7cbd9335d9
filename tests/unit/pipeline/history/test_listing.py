"""Search: whatever is typed is words, never syntax."""

import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from agentlab.pipeline.history.index import open_index
from agentlab.pipeline.history.listing import SearchView, quote_query, search

# what FTS5 reads as syntax where it is not quoted
SYNTAX = st.sampled_from(
    ['"', "'", "(", ")", "*", "^", ":", "-", "+", "{", "}", "AND", "OR", "NOT", "NEAR(", "text", " "]
)
QUERIES = st.lists(SYNTAX | st.text(st.characters(exclude_categories=()), max_size=4), max_size=12).map("".join)


def _index(*texts: str) -> sqlite3.Connection:
    db = open_index(None)
    for number, text in enumerate(texts, 1):
        db.execute(
            "INSERT INTO runs VALUES (?, '/runs', ?, '', 'pipeline', '', '', 0, 0, NULL, NULL, '', '{}')",
            (number, f"r{number}"),
        )
        db.execute("INSERT INTO stages VALUES (?, 0, 'draft', 'draft', 'done', ?, NULL, 0, 0)", (number, f"s{number}"))
        db.execute("INSERT INTO texts VALUES (?, ?)", (number, f"s{number}"))
        db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (number, text))
    return db


def _found(query: str, *texts: str) -> list[str]:
    db = _index(*texts)
    try:
        return [hit.run for hit in search(db, "/runs", query, 10)]
    finally:
        db.close()


@given(QUERIES)
def test_nothing_that_is_typed_is_an_error(query: str) -> None:
    assert isinstance(_found(query, "some text"), list)


@given(
    st.lists(
        st.text(st.characters(categories=["L", "N"], max_codepoint=0x24F), min_size=1, max_size=5),
        min_size=1,
        max_size=4,
    ),
    SYNTAX,
)
def test_a_text_is_found_by_its_own_words_in_any_order(words: list[str], mark: str) -> None:
    query = " ".join(mark.strip() + word for word in reversed(words)) if mark in "\"'(*^:-+{" else " ".join(words)
    assert _found(query, " ".join(words)) == ["r1"]


def test_all_words_are_wanted_and_each_may_be_a_beginning() -> None:
    texts = ("The transformer attends", "The transport arrives", "Attention transforms")
    assert sorted(_found("trans att", *texts)) == ["r1", "r3"]
    assert _found("TRANSPORT", *texts) == ["r2"]
    assert _found("transformer arrives", *texts) == []


def test_accents_do_not_matter() -> None:
    assert _found("naive", "a naïve reader") == ["r1"]


def test_a_query_without_words_finds_nothing() -> None:
    assert _found("", "text") == _found("  \0 ", "text") == _found('"*"', "text") == []


def test_words_are_quoted() -> None:
    assert quote_query('say "hi" AND* \0x') == '"say"* """hi"""* "AND*"* "x"*'


def test_the_hit_is_marked() -> None:
    db = _index("word " * 100 + "the\nneedle in it " + "word " * 100)
    (hit,) = search(db, "/runs", "need", 10)
    db.close()
    assert "the »needle« in it" in hit.snippet
    assert hit.snippet.startswith("…")
    assert len(hit.snippet) < 300


def test_a_view_without_hits_is_a_sentence() -> None:
    assert "'needle'" in str(SearchView(query="needle", hits=[]).blocks()[0])
