"""Text of tokens that come one by one. Pure."""

from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"  # stands for bytes that are no whole character yet
_PATIENCE = 32  # tokens; a character has four bytes at most, but a token may end one and begin the next


class Detokenizer:
    """A token is no text by itself: it may be a part of a character, and its space depends on its neighbours.

    So each new one is decoded behind those before it, back to the last place where the text was whole, and what is
    more than their text is its own: linear in the length of the answer.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._before = 0  # where decoding begins
        self._said = 0  # up to here the text was given out

    def feed(self, token: int) -> str:
        """The text that this token completes, often none."""
        self._tokens.append(token)
        new = self._new()
        if not new or (new.endswith(_BROKEN) and len(self._tokens) - self._said < _PATIENCE):
            return ""
        self._before, self._said = self._said, len(self._tokens)
        return new

    def rest(self) -> str:
        """What is left when the answer ends in the middle of a character."""
        return self._new()

    def _new(self) -> str:
        known = self._decode(self._tokens[self._before : self._said])
        return self._decode(self._tokens[self._before :])[len(known) :]
