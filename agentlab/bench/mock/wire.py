"""HTTP/1.1 as far as clients of language models speak it: a head, and a body of a known length. Pure."""

from dataclasses import dataclass

LARGEST_HEAD, LARGEST_BODY = 64 << 10, 64 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Request:
    """`key` is the value of the header that carried a key, "" without one."""

    method: str
    path: str
    key: str
    body: bytes


class Refused(Exception):  # noqa: N818 - a refusal with a status, not a defect
    """What came in is answered with this status, and the connection is closed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Inbox:
    """Bytes in, in whatever pieces they come; whole requests out."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._needed = 0  # bytes without which looking again is idle

    def feed(self, block: bytes) -> None:
        """Add what came in."""
        self._data += block

    def take(self) -> Request | None:
        """The next whole request, None if it is not there yet.

        Raises:
            Refused: it will never be one.
        """
        data = self._data
        if len(data) < max(self._needed, 1):
            return None
        end = data.find(b"\r\n\r\n", 0, LARGEST_HEAD)
        if end < 0:
            if len(data) >= LARGEST_HEAD:
                raise Refused(431, "The head is too large.")
            return None
        line, *lines = bytes(data[:end]).decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (text.partition(":") for text in lines)}
        start = end + 4
        self._needed = start + _length(headers)
        if len(data) < self._needed:
            return None
        body = bytes(data[start : self._needed])
        del data[: self._needed]
        self._needed = 0
        method, path = _target(line)
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        return Request(method, path, key, body)


def _length(headers: dict[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise Refused(411, "A body needs a Content-Length here.")
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()):
        raise Refused(400, "The Content-Length is no number.")
    if len(text) > 12 or int(text) > LARGEST_BODY:
        raise Refused(413, f"A body has at most {LARGEST_BODY} bytes here.")
    return int(text)


def _target(line: str) -> tuple[str, str]:
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise Refused(400, "This is no request of HTTP/1.1.")
    return words[0], words[1].partition("?")[0]
