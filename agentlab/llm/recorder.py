"""Every answer and every failure is an event of the run, so that a resumed run hears exactly what it heard before."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agentlab import errors
from agentlab.errors import AgentlabError, RunUnreadableError
from agentlab.llm import policy
from agentlab.llm.question import RouterOutcome
from agentlab.llm.types import Attempt, Usage

if TYPE_CHECKING:
    from agentlab.runs.run import OpenRun

CALLED = "llm.called"


class RunRecorder:
    """Remembers calls by key: keeps them as `llm.called` events of a run, and knows those of its earlier sessions."""

    def __init__(self, run: "OpenRun") -> None:
        self._run = run
        called = [event.data for event in run.events if event.type == CALLED]
        self._known: dict[str, dict[str, Any]] = {data["key"]: data for data in called if _stands(data)}
        self._spent = sum(map(_event_usage, called), Usage())

    @property
    def run(self) -> str:
        return self._run.id

    def replay(self, key: str) -> dict[str, Any] | None:
        return self._known.get(key)

    def record(self, key: str, id: str, data: dict[str, Any]) -> None:  # noqa: A002 - the event's field
        event = self._run.emit(CALLED, id, key=key, **data)
        if _stands(event.data):
            self._known[key] = event.data
        self._spent = self._spent + _event_usage(event.data)

    def total_usage(self) -> Usage:
        """What all recorded calls consumed together, with what those are assumed to have cost that never said."""
        return self._spent


def _event_usage(data: Mapping[str, Any]) -> Usage:
    assumed = [attempt.assumed_usd for attempt in map(attempt_from, data["attempts"])]
    return sum((Usage(cost_usd=cost) for cost in assumed), usage_from(data["usage"]))


def _stands(data: Mapping[str, Any]) -> bool:
    """A call that was refused for its cost is asked again when the budget was raised; all others stand."""
    return not data["error"] or data["error"]["kind"] != errors.BudgetExceededError.__name__


def outcome_data(task: str, outcome: RouterOutcome) -> dict[str, Any]:
    """The outcome of a call as plain data. `model` and `text` are empty when there is an error."""
    return {
        "task": task,
        "model": outcome.model,
        "text": outcome.text,
        "tool_calls": [asdict(call) for call in outcome.tool_calls],
        "finish": outcome.finish,
        "attempts": [asdict(attempt) for attempt in outcome.attempts],
        "usage": asdict(outcome.usage),
        "error": None if outcome.error is None else _error_data(outcome.error),
    }


def _error_data(error: AgentlabError) -> dict[str, Any]:
    data: dict[str, Any] = {"kind": error.kind, "message": error.message, "hint": error.hint}
    if isinstance(error, errors.AllModelsFailedError):
        data["failures"] = list(error.failures)
    return data


def error_from(data: Mapping[str, Any]) -> AgentlabError:
    """The recorded error, of its own class. Raises RunUnreadableError if no such class can have been recorded."""
    kind = policy.kind_of(str(data["kind"]))
    if kind is None:
        raise RunUnreadableError(f"The run recorded an unknown kind of error, {data['kind']!r}.")
    if issubclass(kind, errors.AllModelsFailedError):
        return kind(data["message"], failures=data["failures"], hint=data["hint"])
    return kind(data["message"], hint=data["hint"])


def usage_from(data: Mapping[str, Any]) -> Usage:
    """Inverse of `asdict`."""
    return Usage(data["input_tokens"], data["output_tokens"], data["cost_usd"])


def attempt_from(data: Mapping[str, Any]) -> Attempt:
    """Inverse of `asdict`; events of older versions know no assumed cost."""
    usage = usage_from(data["usage"])
    return Attempt(data["model"], data["error"], data["message"], usage, data.get("assumed_usd"))
