"""A finished measurement to which nobody answered is a failure, and its error says what to do about it. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from agentlab.errors import AllModelsFailedError
from agentlab.llm import policy


@dataclass(frozen=True, slots=True)
class Failed:
    """What went wrong `count` times at a target. `kind` is the error's class; `remedy` is empty where none is known."""

    target: str
    kind: str
    message: str
    count: int = 1
    remedy: str = ""


def unanswered(failures: Sequence[Failed], report: str) -> AllModelsFailedError:
    """The error of a run in which every request failed; `report` is where the rest is told."""
    counts = Counter[str]()
    for failed in failures:
        counts[failed.kind] += failed.count
    kind, most = counts.most_common(1)[0]
    worst = max((failed for failed in failures if failed.kind == kind), key=lambda failed: failed.count)
    told = f" {worst.message}" if worst.message else ""
    remedy = worst.remedy or policy.rule_of(policy.kind_of(kind)).remedy
    return AllModelsFailedError(
        f"No request was answered. {most} of {counts.total()} failed with {kind}, such as {worst.target}:{told}",
        failures=tuple(f"{failed.target}: {failed.kind}: {failed.message}" for failed in failures),
        hint=f"{remedy} The report is {report}; then start a new run.",
    )
