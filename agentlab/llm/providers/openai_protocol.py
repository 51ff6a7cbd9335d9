"""OpenAI's chat completions as data: what is sent, what the events and documents mean, what an error is. Pure.

What comes in is written by a stranger: nothing is taken for granted, every text is bounded.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from agentlab import errors
from agentlab.errors import MalformedReplyError, RateLimitedError, RemoteError
from agentlab.llm.types import Delta, Request, Usage

DONE = "[DONE]"
_LONGEST_MESSAGE = 300

# Words of providers, as they appear in an error's code, type or text, in lower case.
_CONTEXT = ("context_length", "context length", "context window", "maximum context", "exceed_context", "context size")
_QUOTA = ("insufficient_quota", "billing", "exceeded your current quota", "insufficient credits", "credit balance")
_FILTER = ("content_filter", "content_policy", "moderation", "flagged")

_BY_STATUS: dict[int, type[RemoteError]] = {
    400: errors.BadRequestError,
    401: errors.AuthError,
    402: errors.QuotaError,
    403: errors.AuthError,
    404: errors.UnknownModelError,
    408: errors.LLMTimeoutError,
    413: errors.ContextOverflowError,
    422: errors.BadRequestError,
    429: errors.RateLimitedError,
}


@dataclass(frozen=True, slots=True)
class Piece:
    """What an event brings. `begun` is set by text and by reasoning that is not shown, but not by a mere role."""

    delta: Delta
    begun: bool


def request_body(request: Request, extras: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON to send. Always streamed and with usage: a whole answer is the end of a stream. `extras` come on top."""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "seed": request.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.schema is not None:
        wanted = {"name": "answer", "strict": True, "schema": dict(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": wanted}
    return {**body, **extras}


def parse_event(data: str) -> Piece:
    """One event of a stream.

    Raises:
        MalformedReplyError: not JSON of the agreed shape. A lost piece would be a wrong answer, so none is skipped.
        RemoteError: the event reports an error.
    """
    document = _object(data)
    choice = _first_choice(document)
    delta = _mapping(choice.get("delta"))
    begun = any(delta.get(key) for key in ("content", "reasoning", "reasoning_content", "refusal", "tool_calls"))
    return Piece(Delta(_text(delta), _finish(choice), _usage(document)), begun)


def parse_document(body: bytes) -> Delta:
    """A whole answer in one document, from a server that does not stream.

    Raises:
        MalformedReplyError: not JSON of the agreed shape.
        RemoteError: the document reports an error.
    """
    document = _object(body.decode(errors="replace"))
    choice = _first_choice(document)
    if not choice:
        raise MalformedReplyError("The reply holds no choices.")
    return Delta(_text(_mapping(choice.get("message"))), _finish(choice), _usage(document))


def _object(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedReplyError(f"The reply is not JSON: {_shown(text, 80)!r}.") from None
    if not isinstance(document, dict):
        raise MalformedReplyError("The reply is not a JSON object.")
    reported = document.get("error")
    if reported:
        raise _reported(reported)
    return document


def _reported(error: object) -> RemoteError:
    """An error inside a reply with status 200: its own code counts if it is a status."""
    code = _mapping(error).get("code")
    status = code if isinstance(code, int) and not isinstance(code, bool) else 500
    return error_from(status, json.dumps({"error": error}), {}, now=None)


def _first_choice(document: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = document.get("choices")
    if choices is not None and not isinstance(choices, list):
        raise MalformedReplyError("The reply's choices are not a list.")
    return _mapping(choices[0]) if choices else {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(holder: Mapping[str, Any]) -> str:
    content = holder.get("content")
    if isinstance(content, list):  # parts, as some servers send them
        return "".join(str(_mapping(part).get("text") or "") for part in content)
    if content is None or isinstance(content, str):
        return content or ""
    raise MalformedReplyError("The reply's content is not text.")


def _finish(choice: Mapping[str, Any]) -> str | None:
    finish = choice.get("finish_reason")
    if finish == "content_filter":
        raise errors.ContentFilterError("The provider's filter stopped the answer.")
    if finish == "error":
        raise errors.ServerFaultError("The provider gave up within the answer.")
    return str(finish)[:40] if finish else None


def _usage(document: Mapping[str, Any]) -> Usage | None:
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt, answer = (_amount(usage.get(key)) for key in ("prompt_tokens", "completion_tokens"))
    return Usage(
        None if prompt is None else int(prompt),
        None if answer is None else int(answer),
        _amount(usage.get("cost")) or None,  # some endpoints report 0 for what they do not know
    )


def _amount(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return None
    return value


def error_from(status: int, body: str, headers: Mapping[str, str], *, now: float | None) -> RemoteError:
    """The error that a status and a body mean. `now` (UNIX seconds) is for a Retry-After that is a date.

    The text may hold anything, a key included: whoever raises the error scrubs it.
    """
    detail, words = _detail(body)
    said = f"HTTP {status}: {_shown(detail, _LONGEST_MESSAGE)}" if detail else f"HTTP {status}."
    if any(word in words for word in _FILTER) and status in (400, 403, 422):
        return errors.ContentFilterError(said)
    if any(word in words for word in _CONTEXT) and status < 500:
        return errors.ContextOverflowError(said)
    if any(word in words for word in _QUOTA) and status in (400, 403, 429):
        return errors.QuotaError(said)
    if status == 429:
        return RateLimitedError(said, retry_after=retry_after(headers, now))
    if status in _BY_STATUS:
        return _BY_STATUS[status](said)
    return errors.ServerFaultError(said) if status >= 500 else errors.BadRequestError(said)


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
        wait = parsedate_to_datetime(value).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return max(0.0, wait)


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


def _shown(text: str, width: int) -> str:
    """One line of printable text."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * width]).split())
    return line if len(line) <= width else f"{line[:width]}..."
