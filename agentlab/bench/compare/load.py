"""Two load runs: latencies and failures of the stages that put the same load on their targets."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentlab.bench.compare.result import SHARE_ANSWERED, CompareSide, Figure, figure
from agentlab.bench.load.records import Record, from_lines
from agentlab.bench.load.result import StageRow
from agentlab.config.base import flatten
from agentlab.config.yaml_tree import read_yaml
from agentlab.errors import RunUnreadableError, UsageError
from agentlab.stats.control import Interval
from agentlab.stats.proportions import share_difference_interval
from agentlab.stats.ratios import quantile_ratio_intervals

Floats = NDArray[np.float64]

_QUANTILES = (0.5, 0.9, 0.99)
_LEAST_BEYOND = 5  # answers beyond a quantile; with fewer, its interval says nothing
_MS = 1000.0
_MOST_CELLS = 100_000_000  # values resampled for one interval
# What has to be alike besides the load of a stage: other prompts and answers take other times.
_SAME = ("prompt_tokens", "output_tokens", "prefix_cache", "faults.share")

_LATENCIES: tuple[tuple[str, Callable[[Record], float | None]], ...] = (
    ("time to first token", lambda record: record.first),
    ("latency", lambda record: record.last),
)


def load_figures(first_side: CompareSide, second_side: CompareSide, pair: tuple[str, str]) -> list[Figure]:
    """The figures of two targets under the same loads.

    Raises:
        UsageError: the runs asked for other prompts or answers, or no stage of theirs has the same load.
        RunUnreadableError: a file of requests is absent or damaged.
    """
    _require_same_requests(first_side, second_side)
    first, second = _loads(first_side, pair[0]), _loads(second_side, pair[1])
    common = [load for load in first if load in second]
    if not common:
        raise UsageError(
            f"{pair[0]} and {pair[1]} were not measured under the same load: "
            f"{_load_labels(first)} in the first run, {_load_labels(second)} in the second.",
            hint="Run both with the same load.mode, load.concurrency and load.rates.",
        )
    name = pair[0] if pair[0] == pair[1] else f"{pair[0]} / {pair[1]}"
    figures: list[Figure] = []
    for load in common:
        rows = first[load], second[load]
        records = _records(first_side, rows[0]), _records(second_side, rows[1])
        marks = "; ".join(dict.fromkeys([*rows[0].marks, *rows[1].marks]))
        figures += _figures(name, rows[0].label, records, marks)
    return figures


def _require_same_requests(first_side: CompareSide, second_side: CompareSide) -> None:
    a, b = _load_config(first_side), _load_config(second_side)
    differing = [key for key in _SAME if a.get(key) != b.get(key)]
    if differing:
        differences = "; ".join(f"load.{key}: {a.get(key)} and {b.get(key)}" for key in differing)
        raise UsageError(
            f"The two runs have different load settings ({differences}), so their times cannot be compared.",
            hint="Run both with the same settings.",
        )


def _load_config(side: CompareSide) -> dict[str, Any]:
    tree = read_yaml(side.record.text("config.yaml"), str(side.record.path / "config.yaml")).data
    return flatten(tree.get("load") or {})


def _loads(side: CompareSide, target: str) -> dict[tuple[str, float], StageRow]:
    """The stages of a target by their load; of a load that came twice, the last."""
    stages = side.result.load.stages if side.result.load else []
    return {(row.arrivals, row.value): row for row in stages if row.target == target}


def _load_labels(loads: dict[tuple[str, float], StageRow]) -> str:
    return ", ".join(row.label for row in loads.values()) or "none"


def _records(side: CompareSide, row: StageRow) -> Sequence[Record]:
    try:
        return from_lines(side.record.text(row.file))
    except ValueError as error:
        raise RunUnreadableError(
            f"{side.record.path / row.file} is damaged: {error}.",
            hint="Run the benchmark again: agentlab llm-bench run",
        ) from error


def _figures(
    target: str, stage: str, records: tuple[Sequence[Record], Sequence[Record]], marks: str
) -> Iterator[Figure]:
    first = [record for record in records[0] if record.is_answered]
    second = [record for record in records[1] if record.is_answered]
    for metric, moment in _LATENCIES:
        a, b = _times(first, moment), _times(second, moment)
        for quantile in _QUANTILES:
            yield times_ratio((target, stage, f"{metric} p{quantile * 100:g}"), "ms", quantile, a, b, marks)
    counts = (len(first), len(records[0])), (len(second), len(records[1]))
    yield figure(
        (target, stage, SHARE_ANSWERED),
        "difference",
        [answered / sent if sent else None for answered, sent in counts],
        (counts[0][1], counts[1][1]),
        (lambda level, _: share_difference_interval(*counts, level=level)) if all(records) else None,
        "" if all(records) else "no requests",
    )


def _times(records: Sequence[Record], moment: Callable[[Record], float | None]) -> Floats:
    """Milliseconds from the scheduled send, in the order of the schedule."""
    ordered = sorted(records, key=lambda record: record.scheduled)
    times = [(at - record.scheduled) * _MS for record in ordered if (at := moment(record)) is not None]
    return np.array([time for time in times if time > 0], dtype=np.float64)


def times_ratio(
    name: tuple[str, str, str], unit: str, quantile: float, a: Floats, b: Floats, note: str = "", resamples: int = 0
) -> Figure:
    """A quantile of the times of both runs; 0 resamples are as many as it takes."""
    enough = min(a.size, b.size) * (1 - quantile) >= _LEAST_BEYOND - 1e-9
    few = f"too few answers: {_LEAST_BEYOND / (1 - quantile):.0f} needed on each side"

    def ratio(level: float, rng: np.random.Generator) -> Interval:
        resample_goal = max(2_000, min(20_000, round(20 / (1 - level))))  # ten resamples beyond each end
        count = resamples or max(1_000, min(resample_goal, _MOST_CELLS // max(a.size, b.size)))
        return quantile_ratio_intervals(a, b, [quantile], rng, level=level, resamples=count)[0]

    values = [float(np.quantile(times, quantile)) if times.size else None for times in (a, b)]
    return figure(name, "ratio", values, (a.size, b.size), ratio if enough else None, note if enough else few, unit)
