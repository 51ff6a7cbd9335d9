"""Answers as JSON, and a bounded store of them in memory."""

from collections import OrderedDict

from pydantic import TypeAdapter

from agentlab.llm.ledger.sample import CachedAnswer

MOST_BYTES = 256 << 10  # of one answer
_ROWS = 1_000
_BYTES = 16 << 20

_JSON = TypeAdapter(CachedAnswer)


def encoded(answer: CachedAnswer) -> bytes | None:
    """An answer as JSON; None when it is not worth keeping: above 256 KiB, or not Unicode."""
    if len(answer.text) > MOST_BYTES:
        return None
    try:
        body = _JSON.dump_json(answer)
    except ValueError:
        return None
    return body if len(body) <= MOST_BYTES else None


def decoded(body: bytes) -> CachedAnswer | None:
    """Inverse of `encoded`; None when it is anything else."""
    try:
        return _JSON.validate_json(body)
    except ValueError:
        return None


class RecentAnswers:
    """The newest answers, at most 1,000 and 16 MiB."""

    def __init__(self) -> None:
        self._bodies: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> CachedAnswer | None:
        """The answer under a key."""
        body = self._bodies.get(key)
        return None if body is None else decoded(body)

    def put(self, key: str, body: bytes) -> None:
        """Keep an encoded answer; the oldest make room."""
        self._bytes += len(body) - len(self._bodies.pop(key, b""))
        self._bodies[key] = body
        while len(self._bodies) > _ROWS or self._bytes > _BYTES:
            self._bytes -= len(self._bodies.popitem(last=False)[1])
