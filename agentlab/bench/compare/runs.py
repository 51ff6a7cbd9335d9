"""Two finished benchmarks, or two targets of one, against each other: figure by figure, with intervals and verdicts."""

from pathlib import Path
from shlex import quote

import numpy as np

from agentlab.bench.compare.load import load_figures
from agentlab.bench.compare.quality import quality_figures
from agentlab.bench.compare.result import CompareResult, CompareRow, Figure, Side, Verdict
from agentlab.bench.result import BenchResult
from agentlab.errors import UnknownNameError, UsageError
from agentlab.runs.manifest import read_manifest
from agentlab.runs.results import read_result
from agentlab.runs.store import RunRecord
from agentlab.stats.control import Interval

COMMAND = "llm-bench"


def compare_runs(
    first: Path,
    second: Path,
    *,
    targets: tuple[str, str] | None = None,
    level: float = 0.95,
    tolerance: float = 0.05,
    seed: int = 0,
) -> CompareResult:
    """What changed from the first run to the second.

    Each interval is widened (Bonferroni) until all of them hold together at `level`: a check of every change that
    looks at thirty figures must not fail by chance every time.

    Args:
        first, second: run folders of `llm-bench`; the same twice to compare two of its targets.
        targets: one of each run; None compares the targets that both have, or the only ones.
        level: at which all intervals hold together.
        tolerance: ratios within this share of 1 count as equal; runs of one system differ by a few percent.
        seed: of the resampling.

    Raises:
        RunUnreadableError: no run, not finished, or damaged.
        UnknownNameError: a run has no such target.
        UsageError: the two cannot be compared: other commands, measures, items or loads.
    """
    one, other = _side(first), _side(second)
    if one.result.measure != other.result.measure:
        raise UsageError(
            f"{one.record.id} measured {one.result.measure}, {other.record.id} measured {other.result.measure}.",
            hint="Compare two runs of the same kind.",
        )
    if one.result.check is not None:
        raise UsageError(
            "Checks ask too little to be compared.", hint="Measure load or quality: agentlab llm-bench run, or quality."
        )
    pairs = _pairs(one, other, targets)
    collect = load_figures if one.result.load is not None else quality_figures
    figures = [figure for pair in pairs for figure in collect(one, other, pair)]
    measured = sum(figure.interval is not None for figure in figures)
    each = 1 - (1 - level) / max(1, measured)
    rng = np.random.default_rng(seed)
    return CompareResult(
        first=one.record.id,
        second=other.record.id,
        level=level,
        tolerance=tolerance,
        rows=[_row(figure, each, tolerance, rng) for figure in figures],
    )


def _side(path: Path) -> Side:
    record = RunRecord(path, read_manifest(path))
    if record.manifest.command != COMMAND:
        raise UsageError(f"{record.id} is a run of {record.manifest.command}, not of {COMMAND}.")
    if record.status != "completed":
        raise UsageError(
            f"The run {record.id} is {record.status}; only finished ones are compared.",
            hint=f"agentlab runs resume {quote(record.id)} --runs-dir {quote(str(path.parent))}",
        )
    return Side(record, read_result(record, BenchResult))


def targets_in(result: BenchResult) -> list[str]:
    """Names of what a run measured, in its order."""
    rows = result.load.stages if result.load else result.quality.targets if result.quality else []
    return list(dict.fromkeys(row.target for row in rows))


def _pairs(one: Side, other: Side, chosen: tuple[str, str] | None) -> list[tuple[str, str]]:
    """Which target is compared with which."""
    first, second = targets_in(one.result), targets_in(other.result)
    if chosen is not None:
        for name, known in zip(chosen, (first, second), strict=True):
            if name not in known:
                raise UnknownNameError("target", name, known)
        return [chosen]
    if one.record.path.resolve() == other.record.path.resolve():
        raise UsageError(
            "A run says the same as itself.", hint=f"Name two of its targets to compare: {', '.join(first)}."
        )
    common = [(name, name) for name in first if name in second]
    if common:
        return common
    if len(first) == len(second) == 1:
        return [(first[0], second[0])]
    raise UsageError(
        "The two runs have no target in common.",
        hint=f"Name one of each: {', '.join(first)}; and {', '.join(second)}.",
    )


def _row(figure: Figure, level: float, tolerance: float, rng: np.random.Generator) -> CompareRow:
    found = figure.interval(level, rng) if figure.interval else None
    return CompareRow(
        target=figure.target,
        stage=figure.stage,
        metric=figure.metric,
        unit=figure.unit,
        kind=figure.kind,
        direction=figure.direction,
        first=figure.first,
        second=figure.second,
        estimate=found and found.estimate,
        low=found and found.low,
        high=found and found.high,
        level=level,
        n=figure.n,
        method=found.method if found else "none",
        verdict=verdict_of(figure, found, tolerance),
        note=figure.note,
    )


def verdict_of(figure: Figure, found: Interval | None, tolerance: float) -> Verdict:
    """Better or worse only if the whole interval says so, a ratio by more than the tolerance. Pure."""
    if found is None:
        return "no evidence"
    low_end, high_end = (1 / (1 + tolerance), 1 + tolerance) if figure.kind == "ratio" else (0.0, 0.0)
    if found.high < low_end:
        return "better" if figure.direction == "lower" else "worse"
    if found.low > high_end:
        return "worse" if figure.direction == "lower" else "better"
    return "no evidence"
