"""The answer of `agentlab llm-bench compare`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from agentlab.bench.result import BenchResult
from agentlab.errors import GateError
from agentlab.runs.document import AnswerDocument, Block, Text, table
from agentlab.runs.store import RunRecord
from agentlab.stats.control import Interval, least_pairs

Verdict = Literal["better", "worse", "no evidence"]
SHARE_ANSWERED = "share answered"
# At a level, with a generator.
Estimate = Callable[[float, np.random.Generator], Interval]


@dataclass(frozen=True, slots=True)
class CompareSide:
    """One of the two runs."""

    record: RunRecord
    result: BenchResult


class CompareRow(AnswerDocument):
    """One figure of both runs. `estimate` is the ratio second / first, or the difference second - first.

    Without an interval (`low` is None) there is nothing to judge by, and `note` says why. `level` is that of the
    row's interval, chosen so that all rows of the table hold together at the table's level. `n` counts each side.
    """

    target: str
    stage: str
    metric: str
    unit: str
    kind: Literal["ratio", "difference"]
    direction: Literal["lower", "higher"]
    first: float | None
    second: float | None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    level: float = 0.0
    n: tuple[int, int]
    method: str = "none"
    verdict: Verdict = "no evidence"
    note: str = ""

    @property
    def is_judged(self) -> bool:
        """Whether this says something of speed or quality: a few requests that were answered do not."""
        return self.metric != SHARE_ANSWERED and self.low is not None and min(self.n) >= least_pairs()


# A row before it is judged, and how its interval is found: None where there is too little to judge by.
Figure = tuple[CompareRow, Estimate | None]


def figure(
    name: tuple[str, str, str],
    kind: Literal["ratio", "difference"],
    values: Sequence[float | None],
    n: tuple[int, int],
    interval: Estimate | None,
    note: str,
    unit: str = "",
) -> Figure:
    """A figure of target, stage and metric. Times are told as a ratio, the lower the better; shares as a difference."""
    target, stage, metric = name
    direction: Literal["lower", "higher"] = "lower" if kind == "ratio" else "higher"
    return CompareRow(
        target=target,
        stage=stage,
        metric=metric,
        unit=unit,
        kind=kind,
        direction=direction,
        first=values[0],
        second=values[1],
        n=n,
        note=note,
    ), interval


class CompareResult(AnswerDocument):
    """The second run against the first."""

    first: str
    second: str
    level: float
    tolerance: float
    rows: list[CompareRow]

    @property
    def worse(self) -> list[CompareRow]:
        return [row for row in self.rows if row.verdict == "worse"]

    def gate(self) -> GateError | None:
        """The error that a check of every change should end with; None if figures were judged and none got worse."""
        if not self.worse:
            if any(row.is_judged for row in self.rows):
                return None
            return GateError(
                f"{self.second} cannot be compared with {self.first}: too few answers.",
                hint="Measure both again with more requests; the column `note` says how many are needed.",
            )
        worse = [f"{row.metric} of {row.target}{f' at {row.stage}' if row.stage else ''}" for row in self.worse]
        message = f"{self.second} is worse than {self.first}: {', '.join(worse)}."
        return GateError(message, hint="Measure again to confirm it.")

    def blocks(self) -> list[Block]:
        verdicts = [row.verdict for row in self.rows]
        better, worse = verdicts.count("better"), verdicts.count("worse")
        return [
            Text(
                f"{self.second} against {self.first}: {better} better, {worse} worse, "
                f"{len(verdicts) - better - worse} without evidence. All intervals hold jointly at "
                f"{self.level:.0%}; ratios within {self.tolerance:.0%} of 1 count as equal."
            ),
            table(
                self.rows,
                {
                    "target": lambda row: row.target,
                    "stage": lambda row: row.stage or "–",
                    "metric": lambda row: row.metric,
                    "first": lambda row: _figure(row.first, row.unit),
                    "second": lambda row: _figure(row.second, row.unit),
                    "second against first": _estimate,
                    "verdict": lambda row: row.verdict,
                    "note": lambda row: row.note,
                },
            ),
        ]


def _figure(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:.4g}{f' {unit}' if unit else ''}"


def _estimate(row: CompareRow) -> str:
    if row.estimate is None or row.low is None or row.high is None:
        return "–"
    if row.kind == "ratio":
        return f"{row.estimate:.3f}x [{row.low:.3f}, {row.high:.3f}]"
    return f"{row.estimate:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
