"""Server-sent events: bytes in, in whatever pieces they come, the data of whole events out. Pure.

Lines end in LF or CRLF. The standard also allows a lone CR, which no provider sends.
"""

from agentlab.errors import MalformedReplyError

LARGEST_EVENT = 1 << 18  # bytes; a piece of an answer has a few hundred


class SseDecoder:
    """Reads one stream. Comments, names, ids and events without data are dropped."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # a line that has not ended yet
        self._waiting = 0  # its bytes
        self._data: list[bytes] = []
        self._size = 0
        self._begun = False

    def feed(self, block: bytes) -> list[str]:
        """The data of the events that end in this block. Raises MalformedReplyError if one is too large or no UTF-8."""
        # never the whole line so far: a stream of single bytes stays linear
        *lines, unfinished_line = block.split(b"\n")
        if lines and self._rest:
            lines[0] = b"".join((*self._rest, lines[0]))
            self._rest, self._waiting = [], 0
        events = []
        for line in lines:
            if line.endswith(b"\r"):
                line = line[:-1]
            if not self._begun:
                self._begun, line = True, line.removeprefix(b"\xef\xbb\xbf")
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
                self._size += len(line)
                self._check(0)
            elif not line and self._data:
                events.append(self._event())
            else:  # a comment, another field, or the end of an event without data
                self._check(len(line))
        if unfinished_line:
            self._rest.append(unfinished_line)
            self._waiting += len(unfinished_line)
            self._check(self._waiting)
        return [event for event in events if event]

    def _check(self, extra_bytes: int) -> None:
        if self._size + extra_bytes > LARGEST_EVENT:
            raise MalformedReplyError(f"An event of the stream is larger than {LARGEST_EVENT} bytes.")

    def _event(self) -> str:
        data, self._data, self._size = b"\n".join(self._data), [], 0
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise MalformedReplyError("An event of the stream is not UTF-8.") from error
