"""Server-sent events: bytes in, in whatever pieces they come, the data of whole events out. Pure.

Lines end in LF or CRLF. The standard also allows a lone CR, which no provider sends.
"""

from agentlab.errors import MalformedReplyError

LARGEST_EVENT = 1 << 20  # bytes


class SseDecoder:
    """Reads one stream. Comments, names, ids and events without data are dropped."""

    def __init__(self) -> None:
        self._rest = bytearray()  # a line that has not ended yet
        self._data: list[bytes] = []
        self._size = 0
        self._begun = False

    def feed(self, block: bytes) -> list[str]:
        """The data of the events that end in this block.

        Raises:
            MalformedReplyError: an event is too large, or not UTF-8.
        """
        *ended, rest = block.split(b"\n")  # never the whole line so far: a stream of single bytes stays linear
        events = []
        for piece in ended:
            self._grow(piece)
            line, self._rest = bytes(self._rest), bytearray()
            event = self._line(line.removesuffix(b"\r"))
            if event is not None:
                events.append(event)
        self._grow(rest)
        return events

    def _grow(self, piece: bytes) -> None:
        self._rest += piece
        if self._size + len(self._rest) > LARGEST_EVENT:
            raise MalformedReplyError(f"An event of the stream is larger than {LARGEST_EVENT} bytes.")

    def _line(self, line: bytes) -> str | None:
        if not self._begun:
            self._begun, line = True, line.removeprefix(b"\xef\xbb\xbf")
        if line.startswith(b"data:"):
            value = line[5:].removeprefix(b" ")
            self._data.append(value)
            self._size += len(value) + 1
            return None
        if line or not self._data:
            return None  # a comment, another field, or the end of an event without data
        data, self._data, self._size = b"\n".join(self._data), [], 0
        try:
            return data.decode() or None
        except UnicodeDecodeError as error:
            raise MalformedReplyError("An event of the stream is not UTF-8.") from error
