"""The kinds of error of the router, in four groups that a reader knows. Pure."""

from typing import Literal

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
