"""Errors as clients of OpenAI know them: an HTTP status, and a document that never holds a secret. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentlab import errors
from agentlab.errors import AgentlabError
from agentlab.runs.redact import Redactor

# The router has tried again already: a client that does so too would multiply the tries. Official clients obey this.
_ENOUGH = {"X-Should-Retry": "false"}
_TOO_LONG = "This model's maximum context length is exceeded."  # clients know the error by these words
_SOON = 1  # seconds; where nobody knows when it is worth another try

# The first class that fits; a provider's 401 or 404 is no fault of who asks the gateway, and becomes 502.
_STATUSES: tuple[tuple[type[AgentlabError], int, str, str], ...] = (
    (errors.UnknownNameError, 404, "invalid_request_error", "model_not_found"),
    (errors.UsageError, 400, "invalid_request_error", "invalid_value"),
    (errors.BudgetExceededError, 402, "insufficient_quota", "budget_exceeded"),
    (errors.QuotaError, 402, "insufficient_quota", "insufficient_quota"),
    (errors.RateLimitedError, 429, "rate_limit_error", "rate_limit_exceeded"),
    (errors.ContextOverflowError, 400, "invalid_request_error", "context_length_exceeded"),
    (errors.ContentFilterError, 400, "invalid_request_error", "content_filter"),
    (errors.BadRequestError, 400, "invalid_request_error", "invalid_value"),
    (errors.LLMTimeoutError, 504, "timeout_error", "timeout"),
    (errors.LLMCancelledError, 503, "server_error", "shutting_down"),
    (errors.LLMTruncatedError, 502, "upstream_error", "broken_off"),
    (errors.RemoteError, 502, "upstream_error", "no_answer"),
)
_TYPES = {401: "authentication_error", 403: "permission_error", 503: "server_error", 508: "server_error"}


class RefusedError(errors.UsageError):
    """The gateway does not take a request. `param` is the parameter at fault, such as `messages[0].content`."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str = "invalid_value",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Fault:
    """What a client is told."""

    status: int
    document: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def fault_of(error: AgentlabError, redactor: Redactor) -> Fault:
    """The status, headers and document of an error."""
    if isinstance(error, RefusedError):
        body = document(redactor.scrub(error.message), error.status, error.code, error.param)
        return Fault(error.status, body, error.headers)
    kind = _cause(error)
    rows = (row for row in _STATUSES if issubclass(kind, row[0]))
    _, status, type_, code = next(rows, (AgentlabError, 500, "server_error", "internal_error"))
    shows_hint = error.hint and (isinstance(error, errors.UnknownNameError) or status == 502)
    message = f"{error.message} {error.hint}" if shows_hint else error.message
    if code == "context_length_exceeded":
        message = f"{_TOO_LONG} {message}"
    param = "model" if isinstance(error, errors.UnknownNameError) else None
    return Fault(status, _document(redactor.scrub(message), type_, code, param), _retry_headers(status, error))


def internal() -> Fault:
    """A bug of the gateway: nothing about it leaves the process."""
    body = _document("The gateway failed; see its log.", "server_error", "internal_error", None)
    return Fault(500, body, _ENOUGH)


def _cause(error: AgentlabError) -> type[AgentlabError]:
    """What an error comes to: what all models said alike tells more than that all failed."""
    if not isinstance(error, errors.AllModelsFailedError):
        return type(error)
    if error.retry_after is not None:
        return errors.RateLimitedError
    for kind in (
        errors.RateLimitedError,
        errors.LLMTimeoutError,
        errors.ContextOverflowError,
        errors.ContentFilterError,
        errors.BadRequestError,
    ):
        mark = f": {kind.__name__}: "
        if error.failures and all(mark in line for line in error.failures):
            return kind
    return type(error)


def _retry_headers(status: int, error: AgentlabError) -> Mapping[str, str]:
    if status not in (429, 503):
        return _ENOUGH
    after = getattr(error, "retry_after", None)
    return {"Retry-After": str(_SOON if after is None else max(1, math.ceil(after)))}


def document(message: str, status: int, code: str, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error document of a refusal."""
    return _document(message, _TYPES.get(status, "invalid_request_error"), code, param)


def _document(message: str, type_: str, code: str, param: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}
