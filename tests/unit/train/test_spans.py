"""The tokens of passages of a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from agentlab.train.spans import SpanError, SpanTokenizer
from tests.unit.train.chats import bytewise, characters, spaced

WORDS = bytewise(None)
SPANS = SpanTokenizer(WORDS)


@given(st.text(st.sampled_from("the dog.\n\té🦜"), max_size=40), st.data())
def test_passages_are_cut_out_exactly_and_nothing_is_lost(text, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    passages = list(zip(cuts[::2], cuts[1::2], strict=False))
    # a passage ends where a token of its own ends; here, where the next passage or the text does
    passages = [(a, passages[n + 1][0] if n + 1 < len(passages) else len(text)) for n, (a, _) in enumerate(passages)]
    ids, spans = SPANS.encode(text, passages)
    assert WORDS.decode(ids) == text
    assert [WORDS.decode(ids[span]) for span in spans] == [text[a:b] for a, b in passages]


def test_without_passages_the_tokens_are_the_tokenizers_own():
    for tokenizer, text in ((WORDS, "the dog\n\n  sleeps 🦜"), (spaced("-"), "the dog"), (characters("-"), "the dog")):
        assert SpanTokenizer(tokenizer).encode(text, [])[0] == tokenizer.encode(text, add_special_tokens=False)


def test_a_token_is_split_only_where_a_passage_starts():
    text = "a the dog"
    assert [WORDS.decode([i]) for i in SPANS.encode(text, [(1, 5)])[0]][:2] == ["a", " the"]
    assert [WORDS.decode([i]) for i in SPANS.encode(text, [(2, 5)])[0]][:3] == ["a", " ", "the"]


def test_a_special_token_that_swallows_whitespace_keeps_what_is_before_the_passage():
    tokenizer = bytewise(None)
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<|a|>", rstrip=True, special=True)]})
    ids, (span,) = SpanTokenizer(tokenizer).encode("Q<|a|>\n\n the", [(7, 12)])
    assert tokenizer.decode(ids[: span.start]) == "Q<|a|>"
    assert tokenizer.decode(ids[span]) == "\n the"


def test_a_tokenizer_that_puts_a_space_before_every_text_cannot_split_a_word_from_its_space():
    with pytest.raises(SpanError, match="merges the end of the prompt and 'the' into one token"):
        SpanTokenizer(spaced("-")).encode("a the dog", [(2, 5)])


def test_without_offsets_the_parts_have_to_have_the_tokens_of_the_whole():
    class Pairs:
        """Two characters a token, as far as they go."""

        is_fast = False

        def encode(self, text, add_special_tokens):
            return [hash(text[n : n + 2]) for n in range(0, len(text), 2)]

    ids, (span,) = SpanTokenizer(Pairs()).encode("abcdef", [(2, 4)])
    assert ids[span] == [hash("cd")]
    with pytest.raises(SpanError, match="the tokenizer merges 'a' with the text after it"):
        SpanTokenizer(Pairs()).encode("abcdef", [(1, 4)])


def test_the_tokenizer_is_left_as_it_was():
    before = WORDS.backend_tokenizer.to_str()
    SpanTokenizer(WORDS).encode("the dog", [(1, 3)])
    assert WORDS.backend_tokenizer.to_str() == before
