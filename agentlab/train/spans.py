"""The tokens of passages of a text: by character offsets where a tokenizer gives them, else by prefixes of tokens."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

from agentlab.hf.checkpoint import loading


class SpanError(ValueError):
    """The tokens of a passage cannot be told from those around it; the message says why, as a whole clause."""


class _SpanToken(NamedTuple):
    id: int
    start: int  # in characters
    stop: int


class SpanTokenizer:
    """Tokenises a text once, as a whole, and says which tokens are those of its passages."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is transformers' own; it is not changed.

        Raises:
            ModelFileError: it contradicts itself, as with a merge that is not in its vocabulary.
        """
        self._tokenizer = tokenizer
        self._fast: Any = _with_offsets(tokenizer) if tokenizer.is_fast else None

    def encode(self, text: str, passages: Sequence[tuple[int, int]]) -> tuple[list[int], list[slice]]:
        """The text's tokens, and of each passage `text[start:end]` the slice of them.

        A token that spans the start of a passage is split there: when a model is asked to write the passage, the text
        before it was tokenised alone.

        Raises:
            SpanError: a token cannot be split, or, without offsets, the tokens before a passage's start or end are
                not those of that part of the text.
        """
        if self._fast is None:
            ids = self._tokenizer.encode(text, add_special_tokens=False)
            return ids, [slice(self._before(ids, text, a), self._before(ids, text, b)) for a, b in passages]
        tokens = self._tokens(text)
        for start, _ in reversed(passages):  # from the last: what lies before it keeps its index
            self._split(tokens, text, start)
        spans = [slice(_first_at(tokens, a), _first_at(tokens, b)) for a, b in passages]
        return [token.id for token in tokens], spans

    def _tokens(self, text: str, first: int = 0) -> list[_SpanToken]:
        encoding = self._fast.encode(text, add_special_tokens=False)
        return [_SpanToken(i, first + a, first + b) for i, (a, b) in zip(encoding.ids, encoding.offsets, strict=True)]

    def _split(self, tokens: list[_SpanToken], text: str, cut: int) -> None:
        """Replace the tokens of the characters on both sides of `cut`, if one token spans it."""
        index = _first_at(tokens, cut)
        if not index or tokens[index - 1].stop <= cut:
            return
        start, stop = tokens[index - 1].start, tokens[index - 1].stop
        covered = slice(_first_at(tokens, start), _first_at(tokens, stop))  # a character can be several tokens
        left_tokens, right_tokens = self._tokens(text[start:cut], start), self._tokens(text[cut:stop], cut)
        swallowed = [token.id for token in left_tokens] == [token.id for token in tokens[covered]]  # by a special token
        if not swallowed and self._join_tokens(left_tokens + right_tokens) != self._join_tokens(tokens[covered]):
            # some tokenizers begin every text with a space of their own
            raise SpanError(f"the tokenizer merges the end of the prompt and {text[cut:stop]!r} into one token")
        tokens[covered] = left_tokens + right_tokens

    def _join_tokens(self, tokens: Sequence[_SpanToken]) -> str:
        return "".join(self._fast.id_to_token(token.id) for token in tokens)

    def _before(self, ids: Sequence[int], text: str, cut: int) -> int:
        """How many of the tokens are those of `text[:cut]`."""
        head = self._tokenizer.encode(text[:cut], add_special_tokens=False)
        if list(ids[: len(head)]) != list(head):
            raise SpanError(f"the tokenizer merges {text[max(0, cut - 12) : cut]!r} with the text after it")
        return len(head)


def _first_at(tokens: Sequence[_SpanToken], offset: int) -> int:
    return bisect_left(tokens, offset, key=lambda token: token.start)


def _with_offsets(tokenizer: Any) -> Any:
    """A copy whose offsets tile the text: some post-processors take the whitespace out of them."""
    from tokenizers import Tokenizer

    with loading(f"Cannot read the tokenizer of {tokenizer.name_or_path}"):
        copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())  # checks more than the first reading
    copy.post_processor = None  # its tokens are not wanted either
    copy.no_truncation()
    copy.no_padding()
    return copy
