"""The answer of `agentlab llm-bench quality`: from one line of its `answers.jsonl` to what a target is worth. Pure."""

from collections.abc import Sequence
from statistics import median
from typing import Any, TypeVar

from agentlab.runs.document import AnswerDocument, Block, Heading, Text, dollars, figure_or_dash, number, silence, table
from agentlab.stats.proportions import wilson_interval
from agentlab.tasks.items import TASK_TYPES, TaskType

ANSWERS_FILE = "answers.jsonl"
LEVEL = 0.95
N = TypeVar("N", int, float)
NOT_ASKED = "NotAsked"  # the error of an item that was left out because the target never answered


class BenchAnswer(AnswerDocument):
    """What a target said to one item.

    `score` is in [0, 1]; None until the answer was judged, and for good where no judge is there. `valid` says whether
    it was the JSON that was asked for; None where none was, or nothing came. `error` is the kind of the error of a
    request that failed ("" if it did not): its score is 0. None in the figures is unknown, never 0.
    """

    target: str
    item: str
    digest: str  # of the item, so that other items are not taken for it
    type: TaskType
    level: int
    text: str = ""
    model: str = ""  # that answered in the end
    score: float | None
    valid: bool | None = None
    reason: str
    error: str
    message: str
    first_seconds: float | None = None
    total_seconds: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    agreed: bool | None = None  # whether the judge said the same in both orders


class TypeScore(AnswerDocument):
    """One target at one type of task. `quality` is the mean score of the `scored` items, with its Wilson interval."""

    type: TaskType
    items: int
    scored: int
    failed: int
    quality: float | None
    low: float | None
    high: float | None
    valid_json: float | None


class TargetQuality(AnswerDocument):
    """One target over all items. Rates are the sum of scores over seconds, and over USD; None is unknown.

    `seconds` sums the times of single requests, as if they had been made one after the other; `cost_usd` is of those
    that were answered.
    """

    target: str
    items: int
    scored: int
    failed: int
    quality: float | None
    low: float | None
    high: float | None
    by_type: list[TypeScore]
    seconds: float | None
    median_seconds: float | None
    output_tokens: int | None
    cost_usd: float | None
    per_second: float | None
    per_dollar: float | None
    reason: str = ""  # of its first failure

    def priors(self) -> dict[TaskType, tuple[float, int]]:
        """Mean score and number of scored items by type of task: what is known before a model's first real call."""
        return {row.type: (row.quality, row.scored) for row in self.by_type if row.quality is not None}


def summarise(target: str, answers: Sequence[BenchAnswer]) -> TargetQuality:
    """One target's answers to all items. Sums of what is unknown for some answer are unknown."""
    scored = [answer for answer in answers if answer.score is not None]
    points = sum(answer.score or 0.0 for answer in scored)
    answered = [answer for answer in answers if not answer.error]
    seconds = _sum([answer.total_seconds for answer in scored if answer.error != NOT_ASKED])
    times = [answer.total_seconds for answer in answered if answer.total_seconds is not None]
    cost = _sum([answer.cost_usd for answer in answered])
    scored_cost = _sum([answer.cost_usd for answer in scored if not answer.error])
    asked_types = {answer.type for answer in answers}
    return TargetQuality(
        target=target,
        **_quality(answers),
        reason=next((answer.message or answer.error for answer in answers if answer.error), ""),
        by_type=[_by_type(kind, answers) for kind in TASK_TYPES if kind in asked_types],
        seconds=seconds,
        median_seconds=median(times) if times else None,
        output_tokens=_sum([answer.output_tokens for answer in answered]),
        cost_usd=cost,
        per_second=points / seconds if seconds else None,
        per_dollar=points / scored_cost if scored_cost else None,
    )


def _by_type(kind: TaskType, answers: Sequence[BenchAnswer]) -> TypeScore:
    answers_of_kind = [answer for answer in answers if answer.type == kind]
    valid = [answer.valid for answer in answers_of_kind if answer.valid is not None]
    return TypeScore(type=kind, **_quality(answers_of_kind), valid_json=sum(valid) / len(valid) if valid else None)


def _quality(answers: Sequence[BenchAnswer]) -> dict[str, Any]:
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
    known_values = [value for value in values if value is not None]
    return sum(known_values) if known_values and len(known_values) == len(values) else None


class JudgeNote(AnswerDocument):
    """Who judged open answers, and how far it can be trusted: the share it judged alike in both orders."""

    model: str | None
    judged: int
    agreed: int
    unusable: int
    note: str

    @property
    def agreement(self) -> float | None:
        """Share of the judged answers with the same verdict in both orders; None without any."""
        return self.agreed / self.judged if self.judged else None


class QualityResult(AnswerDocument):
    """All targets at the same items. `item_set` is the digest of the items: results of other items do not compare."""

    item_set: str
    items: int
    level: float
    targets: list[TargetQuality]
    judge: JudgeNote

    def blocks(self) -> list[Block]:
        return [Text(self.verdict), *self.tables()]

    def tables(self) -> list[Block]:
        quality = f"quality, {self.level:.0%} interval"
        type_rows: list[tuple[TargetQuality, TypeScore]] = []
        for target in self.targets:
            type_rows += [(target, score) for score in target.by_type]
        return [
            *(Text(silence(row.target, row.items, row.reason)) for row in self.targets if row.failed == row.items),
            table(
                self.targets,
                {
                    "target": lambda row: row.target,
                    quality: _interval,
                    "scored": lambda row: row.scored,
                    "failed": lambda row: row.failed,
                    "median s": lambda row: number(row.median_seconds, 3),
                    "quality per second": lambda row: number(row.per_second, 3),
                    "cost": lambda row: dollars(row.cost_usd),
                    "quality per dollar": _per_dollar,
                    "tokens out": lambda row: figure_or_dash(row.output_tokens, ",", "unknown"),
                },
                "Quality is the mean score; a request that failed scores 0",
            ),
            Heading("By type of task"),
            table(
                type_rows,
                {
                    "target": lambda row: row[0].target,
                    "type": lambda row: row[1].type,
                    quality: lambda row: _interval(row[1]),
                    "scored": lambda row: row[1].scored,
                    "failed": lambda row: row[1].failed,
                    "valid JSON": lambda row: figure_or_dash(row[1].valid_json, ".0%"),
                },
                "Quality by type of task",
            ),
            Heading("The judge"),
            Text(_judge(self.judge)),
        ]

    @property
    def verdict(self) -> str:
        scored_rows = [row for row in self.targets if row.quality is not None]
        if all(row.failed == row.items for row in self.targets):
            return "No item was answered."
        if not scored_rows:
            return f"None of the answers to the {self.items} items could be scored."
        best = max(scored_rows, key=lambda row: row.quality or 0.0)
        return f"Best on {self.items} items: {best.target}, {_interval(best)}."


def _interval(row: TypeScore | TargetQuality) -> str:
    if row.quality is None or row.low is None or row.high is None:
        return "not scored"
    return f"{row.quality:.2f} [{row.low:.2f}, {row.high:.2f}]"


def _per_dollar(row: TargetQuality) -> str:
    if row.cost_usd == 0:
        return "free"
    return "unknown" if row.per_dollar is None else number(row.per_dollar, 1)


def _judge(judge: JudgeNote) -> str:
    if judge.agreement is None:
        return judge.note
    judged_text = f"{judge.model} judged {judge.judged} open answers against reference answers, each in both orders"
    same = f"it agreed with itself on {judge.agreed} ({judge.agreement:.0%}); otherwise the answer scores 0.5"
    unusable = f" {judge.unusable} judgements could not be used." if judge.unusable else ""
    return f"{judged_text}; {same}.{unusable} {judge.note}".rstrip()
