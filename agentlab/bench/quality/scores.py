"""From single answers to what a target is worth. Pure."""

from collections.abc import Sequence
from statistics import median
from typing import Any, TypeVar

from agentlab.bench.quality.result import NOT_ASKED, Answer, TargetQuality, TypeScore
from agentlab.stats.proportions import wilson_interval
from agentlab.tasks.items import TASK_TYPES, TaskType

LEVEL = 0.95
N = TypeVar("N", int, float)


def summarise(target: str, answers: Sequence[Answer]) -> TargetQuality:
    """One target's answers to all items. Sums of what is unknown for some answer are unknown."""
    scored = [answer for answer in answers if answer.score is not None]
    points = sum(answer.score or 0.0 for answer in scored)
    answered = [answer for answer in answers if not answer.error]
    seconds = _sum([answer.total_seconds for answer in scored if answer.error != NOT_ASKED])
    times = [answer.total_seconds for answer in answered if answer.total_seconds is not None]
    cost = _sum([answer.cost_usd for answer in answered])
    scored_cost = _sum([answer.cost_usd for answer in scored if not answer.error])
    return TargetQuality(
        target=target,
        **_quality(answers),
        reason=next((answer.message or answer.error for answer in answers if answer.error), ""),
        by_type=[_by_type(kind, answers) for kind in TASK_TYPES if any(answer.type == kind for answer in answers)],
        seconds=seconds,
        median_seconds=median(times) if times else None,
        output_tokens=_sum([answer.output_tokens for answer in answered]),
        cost_usd=cost,
        per_second=points / seconds if seconds else None,
        per_dollar=points / scored_cost if scored_cost else None,
    )


def _by_type(kind: TaskType, answers: Sequence[Answer]) -> TypeScore:
    own = [answer for answer in answers if answer.type == kind]
    valid = [answer.valid for answer in own if answer.valid is not None]
    return TypeScore(type=kind, **_quality(own), valid_json=sum(valid) / len(valid) if valid else None)


def _quality(answers: Sequence[Answer]) -> dict[str, Any]:
    """How many there are, and the mean score of those that have one, with its interval."""
    scores = [answer.score for answer in answers if answer.score is not None]
    quality = wilson_interval(sum(scores), len(scores), level=LEVEL) if scores else None
    return {
        "items": len(answers),
        "scored": len(scores),
        "failed": sum(bool(answer.error) for answer in answers),
        "quality": quality and quality.estimate,
        "low": quality and quality.low,
        "high": quality and quality.high,
    }


def _sum(values: Sequence[N | None]) -> N | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
