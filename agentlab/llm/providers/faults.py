"""What a status and the body of a reply mean when they are an error. Pure; one table for all providers."""

import json
import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from agentlab import errors
from agentlab.errors import RateLimitedError, RemoteError
from agentlab.llm.providers.parsing import mapping, printable_line

_LONGEST_MESSAGE = 300

# Signs in an error's code, type and text, in lower case, and the statuses with which they count: providers tell most
# things with 400. The first that fits decides.
_SIGNS: tuple[tuple[str, tuple[int, ...], type[RemoteError]], ...] = (
    (
        r"api[ _]key[ _](not[ _]valid|invalid|expired|is (not valid|invalid))|(invalid|incorrect)[ _]api[ _]key",
        (400, 422),
        errors.AuthError,
    ),
    # of this request, though it comes with the status of a model that is not there
    (r"that (can )?(support|handle)|requested parameters|data policy", (404,), errors.BadRequestError),
    (r"not support embedding|n't support embedding", (404, 500, 501), errors.BadRequestError),
    (
        r"model_not_found|decommissioned|no such model|(unknown|invalid) model( name| id|:|$)|not a valid model|"
        r"\bmodel\b([: ]+[`'\"]?[^\s`'\"]{1,100}[`'\"]?)? +((is|was|has been) )?"
        r"(not found|(does not|doesn't|not) exist|unknown|retired|removed|not available|no longer available)",
        (400, 409, 410, 422),
        errors.UnknownModelError,
    ),
    (
        r"content[_ ](filter|policy|management)|moderation_blocked|requires moderation|flagged",
        (400, 403, 422),
        errors.ContentFilterError,
    ),
    (
        r"context[_ ](length|window|limit|size)|maximum context|exceed_context|prompt is too long",
        tuple(range(400, 500)),
        errors.ContextOverflowError,
    ),
    (
        r"insufficient_quota|billing|exceeded your current quota|insufficient credits|credit balance",
        (400, 403, 429),
        errors.QuotaError,
    ),
)

_BY_STATUS: dict[int, type[RemoteError]] = {
    400: errors.BadRequestError,
    401: errors.AuthError,
    402: errors.QuotaError,
    403: errors.AuthError,
    404: errors.UnknownModelError,
    410: errors.UnknownModelError,
    408: errors.LLMTimeoutError,
    413: errors.ContextOverflowError,
    422: errors.BadRequestError,
    501: errors.BadRequestError,  # nothing that passes: the server cannot do this at all
}
# The same in words, for errors that arrive within a reply.
_BY_WORD: dict[str, int] = {
    "rate_limit": 429,
    "insufficient_quota": 429,
    "overloaded": 529,
    "invalid_request": 400,
    "authentication": 401,
    "billing": 402,
    "permission": 403,
    "not_found": 404,
    "too_large": 413,
}


def error_from(status: int, body: str, headers: Mapping[str, str], *, now: float | None) -> RemoteError:
    """The error that a status and a body mean. `now` (UNIX seconds) is for a Retry-After that is a date.

    The text may hold anything, a key included: whoever raises the error scrubs it.
    """
    detail, words = _detail(body)
    message = f"HTTP {status}: {printable_line(detail, _LONGEST_MESSAGE)}" if detail else f"HTTP {status}."
    for sign, statuses, kind in _SIGNS:
        if status in statuses and re.search(sign, words):
            return kind(message)
    if status == 429:
        return RateLimitedError(message, retry_after=retry_after(headers, now))
    if status in (403, 404) and detail and not words:
        return errors.BadRequestError(message)  # a page of some proxy, which knows nothing of the model
    if status in _BY_STATUS:
        return _BY_STATUS[status](message)
    return errors.ServerFaultError(message) if status >= 500 else errors.BadRequestError(message)


def reported_error(error: object) -> RemoteError:
    """The error that a reply with status 200 reports: its own code counts if it is a status, or else its type."""
    fields = mapping(error)
    code = str(fields.get("code"))
    if code.isdecimal() and 400 <= int(code[:6]) < 600:
        status = int(code)
    else:
        words = f"{code} {fields.get('type')}".lower()
        status = next((status for word, status in _BY_WORD.items() if word in words), 500)
    return error_from(status, json.dumps({"error": error}), {}, now=None)


def _detail(body: str) -> tuple[str, str]:
    """What an error says to people, and all its words in lower case to look for signs in."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return body, ""  # a page of some proxy: its words are no signs
    error = document.get("error", document) if isinstance(document, dict) else document
    if not isinstance(error, dict):
        return str(error), str(error).lower()
    message = error.get("message") or error.get("detail") or ""
    return str(message), " ".join(str(error.get(key) or "") for key in ("code", "type", "message", "metadata")).lower()


def retry_after(headers: Mapping[str, str], now: float | None) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds or a date); None when neither makes sense."""
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _seconds(value)
    if seconds is not None or value is None or now is None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None
