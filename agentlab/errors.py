"""Every error agentlab raises on purpose, with its exit code.

A class has the exit code of its base unless it says otherwise; docs/runs.md lists them for users.

A message is data: one sentence without markup. The hint says what to do next. `cli/main.py` alone prints them.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

_MAX_KNOWN = 20  # names in a hint


class AgentlabError(Exception):
    """Base of the tree. `hint` is the next step for the user; `run` names the run it happened in, if any."""

    exit_code = 1
    run: Mapping[str, str] | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def kind(self) -> str:
        """The class name: what `--json` reports and events record."""
        return type(self).__name__


class UsageError(AgentlabError):
    """The call cannot be carried out as typed."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file, key or value is wrong; the message lists every problem, one per line."""


class DataError(UsageError):
    """A data file was read and cannot be used. `settings` are config keys, and values of them that would help."""

    settings: Mapping[str, Any] = MappingProxyType({})


class UnknownNameError(UsageError):
    """No such name; the hint lists the nearest or all known ones."""

    def __init__(self, what: str, name: str, known: Sequence[str], *, hint: str | None = None) -> None:
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        more = f" and {len(known) - _MAX_KNOWN} more" if len(known) > _MAX_KNOWN else ""
        listed = f"Known: {', '.join(map(_plain, known[:_MAX_KNOWN])) or 'none yet'}{more}."
        if near:
            listed = f"Did you mean {' or '.join(map(_plain, near))}?"
        super().__init__(f"There is no {what} named {name!r}.", hint=f"{listed} {hint}" if hint else listed)


def _plain(name: str) -> str:
    """A name as it is, or quoted and escaped where it would break the line or move the cursor, as a folder's may."""
    return name if name.isprintable() else repr(name)


class RunLockedError(UsageError):
    """Another process works on the run."""


class RunUnreadableError(UsageError):
    """A run folder is damaged or not a run folder."""


class RunMismatchError(UsageError):
    """Resume was asked with a different experiment."""


class MissingError(AgentlabError):
    """Something has to be there first; the hint names the command that brings it."""

    exit_code = 3


class MissingFileError(MissingError):
    """A data or model file is absent."""


class MissingKeyError(MissingError):
    """An API key is absent."""


class UntrustedHostError(MissingError):
    """A key would be sent to a host that nobody has confirmed for it; `homes` are those it is known to belong to."""

    def __init__(self, variable: str, host: str, homes: Sequence[str] = ()) -> None:
        self.variable, self.host = variable, host
        belongs = f", which belongs to {' or '.join(homes)}," if homes else ""
        super().__init__(
            f"The config sends {variable}{belongs} to {host}, which you have not allowed.",
            hint=f"If you trust {host} with it, run: agentlab llm trust {variable} {host}",
        )


class MissingExtraError(MissingError):
    """An optional dependency is not installed."""


class StorageError(MissingError):
    """The disk is full, read-only or not ours."""


class ModelFileError(AgentlabError):
    """A model file is broken or not what was promised."""


class DivergedError(AgentlabError):
    """A training loss became infinite or not a number."""


class RemoteError(AgentlabError):
    """A language model did not answer usefully."""

    exit_code = 4


class LLMConnectionError(RemoteError):
    """Refused, reset, or name not found."""


class HostBusyError(LLMConnectionError):
    """No connection came about while the host held `connections` others of ours: it is alive and takes no more."""

    def __init__(self, message: str, *, hint: str | None = None, connections: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.connections = connections


class LLMTimeoutError(RemoteError):
    """The first-token, idle or total clock ran out."""


class LLMTruncatedError(RemoteError):
    """The stream ended without a finish reason."""


class RateLimitedError(RemoteError):
    """HTTP 429. `retry_after` is in seconds, None when the provider did not say."""

    def __init__(self, message: str, *, hint: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class QuotaError(RemoteError):
    """HTTP 402, or 429 with a quota code: waiting will not help."""


class ServerFaultError(RemoteError):
    """HTTP 5xx."""


class AuthError(RemoteError):
    """HTTP 401 or 403."""


class UnknownModelError(RemoteError):
    """HTTP 404: the provider has no such model."""


class BadRequestError(RemoteError):
    """HTTP 400 or 422."""


class ContextOverflowError(RemoteError):
    """The prompt does not fit the model's context window."""


class ContentFilterError(RemoteError):
    """The provider refused the content."""


class MalformedReplyError(RemoteError):
    """The reply does not follow the agreed protocol, or is larger than allowed."""


class SchemaError(RemoteError):
    """The answer was rejected by its schema, and so was the second one."""


class WorkerDiedError(RemoteError):
    """The process that holds the local model died. The message ends with the tail of its log."""


class LLMCancelledError(RemoteError):
    """The caller gave up."""


class AllModelsFailedError(RemoteError):
    """Every candidate failed. `failures` holds one line per attempt; `retry_after` is set when all ask for patience."""

    def __init__(
        self, message: str, *, failures: Sequence[str] = (), hint: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.failures = tuple(failures)
        self.retry_after = retry_after


class GateError(AgentlabError):
    """The work is done, but a threshold or budget was not met."""

    exit_code = 5


class BudgetExceededError(GateError):
    """The next call would cost more than is allowed."""


class Interrupted(AgentlabError):  # noqa: N818 - a state, not a fault
    """Stopped by a signal; the run can be resumed. The exit code is the shell's: 130 for Ctrl-C, 143 for TERM."""

    exit_code = 130

    def __init__(self, message: str, *, hint: str | None = None, signal: int = 2) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + signal
