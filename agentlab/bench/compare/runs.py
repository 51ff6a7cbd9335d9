"""Two finished benchmarks, or two targets of one, against each other: figure by figure, with intervals and verdicts."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from shlex import quote
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agentlab.bench.compare.load import load_figures, times_ratio
from agentlab.bench.compare.result import CompareResult, CompareRow, CompareSide, Figure, Verdict, figure
from agentlab.bench.quality.result import ANSWERS_FILE, BenchAnswer
from agentlab.bench.result import BenchResult
from agentlab.errors import RunUnreadableError, UnknownNameError, UsageError
from agentlab.runs.manifest import read_manifest
from agentlab.runs.store import RunRecord, read_result
from agentlab.stats.control import LEVEL, Interval
from agentlab.stats.paired_tests import compare
from agentlab.tasks.items import TASK_TYPES

COMMAND = "llm-bench"


def compare_runs(
    first: Path, second: Path, *, targets: tuple[str, str] | None = None, tolerance: float = 0.05
) -> CompareResult:
    """What changed from the first run of `llm-bench` to the second; the same twice to compare two of its targets.

    Each interval is widened (Bonferroni) until all of them hold together at 95 %: a check of every change that
    looks at thirty figures must not fail by chance every time.

    Args:
        targets: one of each run; None compares the targets that both have, or the only ones.
        tolerance: ratios within this share of 1 count as equal; runs of one system differ by a few percent.

    Raises:
        RunUnreadableError: no run, not finished, or damaged.
        UnknownNameError: a run has no such target.
        UsageError: the two cannot be compared: other commands, measures, items or loads.
    """
    first_side, second_side = _side(first), _side(second)
    if first_side.result.measure != second_side.result.measure:
        raise UsageError(
            f"{first_side.record.id} measured {first_side.result.measure}, "
            f"{second_side.record.id} measured {second_side.result.measure}.",
            hint="Compare two runs of the same kind.",
        )
    if first_side.result.check is not None:
        raise UsageError(
            "Availability checks send too few requests to be compared.",
            hint="Measure load or quality: `agentlab llm-bench run` or `agentlab llm-bench quality`.",
        )
    pairs = _pairs(first_side, second_side, targets)
    collect = load_figures if first_side.result.load is not None else quality_figures
    figures = list(chain.from_iterable(collect(first_side, second_side, pair) for pair in pairs))
    measured = sum(interval is not None for _, interval in figures)
    row_level = 1 - (1 - LEVEL) / max(1, measured)
    rng = np.random.default_rng(0)
    rows = [_judge_figure(comparison, row_level, tolerance, rng) for comparison in figures]
    return CompareResult(
        first=first_side.record.id, second=second_side.record.id, level=LEVEL, tolerance=tolerance, rows=rows
    )


def _side(path: Path) -> CompareSide:
    record = RunRecord(path, read_manifest(path))
    if record.manifest.command != COMMAND:
        raise UsageError(f"{record.id} is a run of {record.manifest.command}, not of {COMMAND}.")
    if record.status != "completed":
        raise UsageError(
            f"The run {record.id} is {record.status}; only finished runs can be compared.",
            hint=f"agentlab runs resume {quote(record.id)} --runs-dir {quote(str(path.parent))}",
        )
    return CompareSide(record, read_result(record, BenchResult))


def targets_in(result: BenchResult) -> list[str]:
    """Names of what a run measured, in its order."""
    rows = result.load.stages if result.load else result.quality.targets if result.quality else []
    return list(dict.fromkeys(row.target for row in rows))


def _pairs(first_side: CompareSide, second_side: CompareSide, chosen: tuple[str, str] | None) -> list[tuple[str, str]]:
    first, second = targets_in(first_side.result), targets_in(second_side.result)
    if chosen is not None:
        for name, known_targets in zip(chosen, (first, second), strict=True):
            if name not in known_targets:
                raise UnknownNameError("target", name, known_targets)
        return [chosen]
    if first_side.record.path.resolve() == second_side.record.path.resolve():
        raise UsageError(
            "Cannot compare a run with itself.", hint=f"Name two of its targets to compare: {', '.join(first)}."
        )
    common = [(name, name) for name in first if name in second]
    if common:
        return common
    if len(first) == len(second) == 1:
        return [(first[0], second[0])]
    raise UsageError(
        "The two runs have no target in common.",
        hint=f"Name one target from each run: {', '.join(first)}; and {', '.join(second)}.",
    )


def _judge_figure(figure: Figure, level: float, tolerance: float, rng: np.random.Generator) -> CompareRow:
    row, interval = figure
    if interval is None:
        return row.model_copy(update={"level": level})
    row_interval = interval(level, rng) if row.kind == "ratio" else interval(level, rng).clip(1.0)
    bounds = {"estimate": row_interval.estimate, "low": row_interval.low, "high": row_interval.high, "level": level}
    verdict = verdict_of(row.kind, row_interval, tolerance)
    return row.model_copy(update={**bounds, "method": row_interval.method, "verdict": verdict})


def verdict_of(kind: Literal["ratio", "difference"], interval: Interval, tolerance: float) -> Verdict:
    """Better or worse only if the whole interval says so, a ratio by more than the tolerance. Pure."""
    ratio = kind == "ratio"
    low_end, high_end = (1 / (1 + tolerance), 1 + tolerance) if ratio else (0.0, 0.0)
    if interval.high < low_end:
        return "better" if ratio else "worse"
    if interval.low > high_end:
        return "worse" if ratio else "better"
    return "no evidence"


def quality_figures(first_side: CompareSide, second_side: CompareSide, pair: tuple[str, str]) -> list[Figure]:
    """Difference of the scores over all items and by type, and ratio of the median answer times.

    Raises:
        UsageError: the runs asked other items.
        RunUnreadableError: the file of answers is absent or damaged.
    """
    sets = [side.result.quality.item_set for side in (first_side, second_side) if side.result.quality]
    if len(set(sets)) > 1:
        raise UsageError(
            "The two runs used different items, so their scores cannot be compared.",
            hint="Run both with the same quality.types, quality.per_type and quality.items_seed.",
        )
    judges = {side.result.quality.judge.model for side in (first_side, second_side) if side.result.quality}
    name = pair[0] if pair[0] == pair[1] else f"{pair[0]} / {pair[1]}"
    a, b = _answers(first_side, pair[0]), _answers(second_side, pair[1])
    if len(judges) > 1:  # scores of two judges are on two scales
        a, b = _without_open_answers(a), _without_open_answers(b)
    shared = [(a[item], b[item]) for item in a if item in b]
    note = "open answers left out: they had different judges" if len(judges) > 1 else ""
    figures = [_score(name, "quality", shared, note)]
    for kind in TASK_TYPES:
        pairs_of_kind = [pair for pair in shared if pair[0].type == kind]
        if pairs_of_kind:
            figures.append(_score(name, f"quality, {kind}", pairs_of_kind, ""))
    return [*figures, _speed(name, shared)]


def _answers(side: CompareSide, target: str) -> dict[str, BenchAnswer]:
    try:
        lines = side.record.text(ANSWERS_FILE).split("\n")
        answers = [BenchAnswer.model_validate_json(line) for line in lines if line]
    except ValueError as error:
        raise RunUnreadableError(
            f"{side.record.path / ANSWERS_FILE} is damaged.",
            hint="Resume the run: its events also contain the answers.",
        ) from error
    return {answer.item: answer for answer in answers if answer.target == target}


def _without_open_answers(answers: Mapping[str, BenchAnswer]) -> dict[str, BenchAnswer]:
    return {item: answer for item, answer in answers.items() if answer.type != "open"}


def _score(target: str, metric: str, pairs: Sequence[tuple[BenchAnswer, BenchAnswer]], note: str) -> Figure:
    scored_pairs = [(a.score, b.score) for a, b in pairs if a.score is not None and b.score is not None]
    first, second = [a for a, _ in scored_pairs], [b for _, b in scored_pairs]
    return figure(
        (target, "", metric),
        "difference",
        [sum(scores) / len(scores) if scores else None for scores in (first, second)],
        (len(first), len(second)),
        (lambda level, rng: compare(second, first, rng, level=level)) if scored_pairs else None,
        note if scored_pairs else "no item was scored in both runs",
    )


def _speed(target: str, pairs: Sequence[tuple[BenchAnswer, BenchAnswer]]) -> Figure:
    a, b = _answer_seconds([first for first, _ in pairs]), _answer_seconds([second for _, second in pairs])
    return times_ratio((target, "", "answer time p50"), "s", 0.5, a[a > 0], b[b > 0], resamples=4_000)


def _answer_seconds(answers: Sequence[BenchAnswer]) -> NDArray[np.float64]:
    return np.array([answer.total_seconds or 0.0 for answer in answers if not answer.error], dtype=np.float64)
