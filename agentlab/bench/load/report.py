"""The report of a run: the same result as on the screen, with every latency and the pictures."""

from collections.abc import Mapping, Sequence

from agentlab.bench.load import tables
from agentlab.bench.load.records import Record
from agentlab.bench.load.result import LoadResult
from agentlab.runs.document import Block, Figure, Heading, Text
from agentlab.runs.report import write_report
from agentlab.runs.run import Run

_BY_LOAD, _RATE = "plots/latency_by_load.png", "plots/throughput.png"
_DISTRIBUTION, _TIMELINE = "plots/distribution.png", "plots/timeline.png"


def write_load_report(run: Run, result: LoadResult, records: Mapping[str, Sequence[Record]]) -> None:
    """Draw the plots and write report.md and report.html. `records` are those of the stages, by their ids."""
    from agentlab.bench.load.plots import distribution, latency_by_load, rate_by_load, timeline

    if drawn := any(row.answered for row in result.stages):
        names = {row.id: f"{row.target}, {row.label}" for row in result.stages}
        swept = [row for row in result.stages if result.mode != "sweep" or row.arrivals == result.stages[-1].arrivals]
        run.write_bytes(_BY_LOAD, latency_by_load(swept))
        run.write_bytes(_RATE, rate_by_load(swept))
        run.write_bytes(_DISTRIBUTION, distribution(records, names))
        run.write_bytes(_TIMELINE, timeline(records, names))
    write_report(run, f"Speed of language models {run.id}", blocks(result, drawn=drawn))


def blocks(result: LoadResult, *, drawn: bool) -> list[Block]:
    """What the report says, in the order a reader asks."""
    shown: list[Block] = [Text(tables.headline(result)), *map(Text, tables.silent(result)), tables.speed_table(result)]
    if result.capacities:
        shown += [Heading("How much it carries"), tables.capacity_table(result)]
    if drawn:
        shown += [
            Figure(_BY_LOAD, "Time to the first and to the last token against the load, p50 and p99"),
            Figure(_RATE, "Answers per second against the load, all and good ones"),
        ]
    if result.stages:
        shown += _details(result, drawn=drawn)
    marks = [Text(mark) for mark in tables.marks(result)] or [Text("Nothing speaks against the figures.")]
    return [
        *shown,
        Heading("How far the figures can be trusted"),
        *marks,
        *(Text(note) for note in result.notes),
        Text(tables.ceiling_note(result.ceiling)),
        Text(
            "A request is scheduled apart from being sent, and its latency counts from the schedule. The first token "
            "is the first piece with text, reasoning or a part of a tool call. Failed requests are in no percentile, "
            "and count against the share of good answers. Percentiles interpolate linearly between order statistics."
        ),
    ]


def _details(result: LoadResult, *, drawn: bool) -> list[Block]:
    shown: list[Block] = [Heading("Latencies"), tables.latency_table(result)]
    if drawn:
        shown += [
            Figure(_DISTRIBUTION, "Share of the answers that began and ended within a time"),
            Figure(_TIMELINE, "Every request by its time of sending"),
        ]
    if any(row.failed for row in result.stages):
        shown += [Heading("What went wrong"), tables.error_table(result)]
    return [*shown, Heading("Tokens and cost"), tables.token_table(result)]
