"""Texts that end an answer, found while it comes in pieces. Pure."""

from collections.abc import Sequence


class StopFinder:
    """Reads one answer. What may be the beginning of a stop text is held back until it is clear."""

    def __init__(self, stops: Sequence[str]) -> None:
        """`stops` that are empty are left out."""
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found = False

    def feed(self, piece: str) -> str:
        """The text that is certain by now. Once a stop text was found (`found`), nothing more comes."""
        if not self._stops or self.found:
            return "" if self.found else piece
        self._held += piece
        # which one ends first, as if the text came one character at a time: then its pieces do not matter
        ends = [(place + len(stop), place) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if ends:
            self.found = True
            keep = min(ends)[1]
        else:
            keep = len(self._held) - max(map(self._begun, self._stops))
        said, self._held = self._held[:keep], self._held[keep:]
        return said

    def rest(self) -> str:
        """What is still held back when the answer ends by itself."""
        return "" if self.found else self._held

    def _begun(self, stop: str) -> int:
        """How many characters at the end of what is held begin this stop text."""
        longest = min(len(stop) - 1, len(self._held))
        return next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)
