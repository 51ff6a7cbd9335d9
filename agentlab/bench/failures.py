"""What went wrong: the kinds of error of the router, in four groups, and what lies behind them. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agentlab.errors import AgentlabError, AllModelsFailedError, MissingError
from agentlab.llm import policy

Group = Literal["Timeout", "Rate Limit", "Model Unavailable", "API Error"]
GROUPS: tuple[Group, ...] = ("Timeout", "Rate Limit", "Model Unavailable", "API Error")

_GROUP_OF: dict[str, Group] = {
    "LLMTimeoutError": "Timeout",
    "RateLimitedError": "Rate Limit",
    "QuotaError": "Rate Limit",
    "HostBusyError": "Rate Limit",
    "LLMConnectionError": "Model Unavailable",
    "UnknownModelError": "Model Unavailable",
    "WorkerDiedError": "Model Unavailable",
    "AllModelsFailedError": "Model Unavailable",
    "MissingFileError": "Model Unavailable",
    "MissingExtraError": "Model Unavailable",
    "ModelFileError": "Model Unavailable",
}


def group_of(kind: str) -> Group:
    """The group of a kind of error (a class name of `agentlab.errors`); every other kind is an API error."""
    return _GROUP_OF.get(kind, "API Error")


def cause_of(error: AgentlabError) -> type[AgentlabError]:
    """The class of an error; of `AllModelsFailedError`, that of the last failure."""
    return _last_failure(error)[0]


def message_of(error: AgentlabError) -> str:
    """The message of an error; of `AllModelsFailedError`, that of the last failure."""
    return _last_failure(error)[1]


def _last_failure(error: AgentlabError) -> tuple[type[AgentlabError], str]:
    if isinstance(error, AllModelsFailedError) and error.failures:
        words = error.failures[-1].split(": ")  # model: kind: message
        for index, word in enumerate(words):
            if (error_class := policy.kind_of(word)) is not None:
                return error_class, ": ".join(words[index + 1 :])
    return type(error), error.message


@dataclass(frozen=True, slots=True)
class Failed:
    """What went wrong `count` times at a target. `kind` is the error's class; `remedy` is empty where none is known."""

    target: str
    kind: str
    message: str
    count: int = 1
    remedy: str = ""


def no_answer_error(failures: Sequence[Failed], report: str) -> AgentlabError:
    """The error of a finished run in which every request failed; it says what to do, and where the `report` is.

    Where all of them lack a key, a file or a package, nobody was asked: it is what is missing.
    """
    counts = Counter[str]()
    for failed in failures:
        counts[failed.kind] += failed.count
    kind, count = counts.most_common(1)[0]
    worst = max((failed for failed in failures if failed.kind == kind), key=lambda failed: failed.count)
    example = f"{worst.target}: {worst.message}" if worst.message else f"{worst.target}:"
    remedy = worst.remedy or policy.rule_of(policy.kind_of(kind)).remedy
    message = f"No request was answered. {count} of {counts.total()} failed with {kind}; for example, {example}"
    hint = f"{remedy} Then start a new run. The report is {report}."
    causes = {policy.kind_of(failed.kind) for failed in failures}
    if all(cause is not None and issubclass(cause, MissingError) for cause in causes):
        return MissingError(message, hint=hint)
    lines = tuple(f"{failed.target}: {failed.kind}: {failed.message}" for failed in failures)
    return AllModelsFailedError(message, failures=lines, hint=hint)
