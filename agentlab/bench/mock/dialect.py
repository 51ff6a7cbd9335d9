"""Answers as bytes: the protocols that the server speaks. Pure; streams are cut into events, one per token."""

import json
from typing import Any, Protocol

from agentlab.bench.mock.answer import Answer

# What providers call an error, by the reason in a script; otherwise by its status.
_CODES = {
    "context": ("context_length_exceeded", "This model's maximum context length is 128 tokens."),
    "quota": ("insufficient_quota", "You exceeded your current quota."),
    "filter": ("content_filter", "The content was filtered."),
}
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
_TYPES |= {413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error"}


class Dialect(Protocol):
    """One protocol. A stream is `opening`, `tokens`, `closing`."""

    def opening(self, answer: Answer) -> bytes:
        """Events before the first token: no content yet."""
        ...

    def tokens(self, answer: Answer) -> tuple[bytes, ...]:
        """One event for each token."""
        ...

    def closing(self, answer: Answer) -> bytes:
        """How the answer ended, and its usage."""
        ...

    def document(self, answer: Answer) -> bytes:
        """The whole answer."""
        ...

    def error_event(self, status: int) -> bytes:
        """An error within a stream."""
        ...

    def error(self, status: int, reason: str, message: str) -> bytes:
        """The body of an error."""
        ...


def dump(value: Any) -> bytes:
    """Compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def error_fields(status: int, reason: str, message: str) -> tuple[str, str, str]:
    """Type, code and text of an error."""
    code, text = _CODES.get(reason, (_TYPES.get(status, "api_error"), f"The script says {status}."))
    return _TYPES.get(status, "api_error"), code, message or text
