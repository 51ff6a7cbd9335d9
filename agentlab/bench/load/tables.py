"""The speed of language models for a reader: sentences and tables; and the report, with every latency and pictures."""

from collections.abc import Mapping, Sequence
from itertools import chain

from agentlab.bench.failures import GROUPS, group_of
from agentlab.bench.load.config import SloConfig
from agentlab.bench.load.records import Record
from agentlab.bench.load.result import Capacity, CeilingRow, LoadResult, Spread, StageRow
from agentlab.runs.document import Block, Figure, Heading, Report, Table, Text, columns_of, silence, table
from agentlab.runs.run import OpenRun

_SECOND = 1000.0
_BY_LOAD, _RATE = "plots/latency_by_load.svg", "plots/throughput.svg"
_DISTRIBUTION, _TIMELINE = "plots/distribution.svg", "plots/timeline.svg"


def summary(result: LoadResult) -> list[Block]:
    """What the terminal shows."""
    summary_blocks: list[Block] = [Text(headline(result)), *map(Text, silent(result)), speed_table(result)]
    if any(row.failed for row in result.stages):
        summary_blocks.append(error_table(result))
    if result.capacities:
        summary_blocks.append(capacity_table(result))
    return [
        *summary_blocks,
        *(Text(note) for note in (*marks(result), *result.notes)),
        Text(ceiling_note(result.ceiling)),
    ]


def silent(result: LoadResult) -> list[str]:
    """Sentences on targets of which no stage had an answer; the reason is the kinds of their errors."""
    sentences = []
    for target in dict.fromkeys(row.target for row in result.stages):
        rows = [row for row in result.stages if row.target == target]
        kinds = sorted(set(chain.from_iterable(row.errors for row in rows)))
        if kinds and not any(row.answered for row in rows):
            sentences.append(silence(target, sum(row.requests for row in rows), ", ".join(kinds)))
    return sentences


def headline(result: LoadResult) -> str:
    """One sentence: who begins to answer first, and who answers most; of one target, how fast it is."""
    answered_rows = [row for row in result.stages if row.ttft is not None]
    if not answered_rows:
        return "No request was answered."
    quick = min(answered_rows, key=lambda row: row.ttft.p50 if row.ttft else 0.0)
    best = max(answered_rows, key=lambda row: row.goodput)
    first_token = f"{_median(quick.ttft)} ({quick.label})"
    goodput = f"{best.goodput:.4g} good answers per second ({best.label})"
    if len({row.target for row in result.stages}) == 1:
        return f"{quick.target}: median time to first token {first_token}; highest goodput {goodput}."
    return (
        f"Lowest median time to first token: {quick.target}, {first_token}. Highest goodput: {best.target}, {goodput}. "
        "`agentlab llm-bench compare` tests whether targets differ by more than chance."
    )


def _median(spread: Spread | None) -> str:
    """With its 95 % interval, where there is one."""
    if spread is None or spread.p50_low is None or spread.p50_high is None:
        return milliseconds(None if spread is None else spread.p50)
    return f"{milliseconds(spread.p50)} [{plain(spread.p50_low)}, {plain(spread.p50_high)}]"


def speed_table(result: LoadResult) -> Table:
    """The stages in a few columns; p50 and p99 from the scheduled send."""
    note = "; * see caveats below" if any(row.marks for row in result.stages) else ""
    return table(
        result.stages,
        {
            **columns_of(StageRow, "target"),
            "load": lambda row: f"{row.label} *" if row.marks else row.label,
            "answered": lambda row: f"{row.answered} of {row.requests}",
            **columns_of(StageRow, "request_rate"),
            "first token ms, p50 / p99": lambda row: _pair(row.ttft),
            "per output token ms, p50 / p99": lambda row: _pair(row.tpot),
            "last token ms, p50 / p99": lambda row: _pair(row.e2e),
            **columns_of(StageRow, "token_rate", "good_share"),
        },
        f"Latencies of complete answers, from the scheduled send; good: {result.objective}{note}",
    )


def latency_table(result: LoadResult) -> Table:
    """Every latency of every stage, with its intervals."""
    rows: list[tuple[str, ...]] = []
    for row in result.stages:
        spreads = {
            "time to first token": row.ttft,
            "time to first token after reasoning": row.output,
            "time per output token": row.tpot,
            "between chunks": row.itl,
            "time to last token": row.e2e,
            "time to first token, from the actual send": row.ttft_sent,
            "time to last token, from the actual send": row.e2e_sent,
            "slip (send delay)": row.slip,
        }
        known_spreads = [(name, spread) for name, spread in spreads.items() if spread is not None]
        rows += [(row.target, row.label, name, *_figures(spread)) for name, spread in known_spreads]
    columns = ("target", "load", "latency", "n", "mean", "p50", "p90", "p99")
    return Table(
        columns,
        rows,
        "Milliseconds; brackets hold 95% confidence intervals of the percentiles (bootstrap over requests)",
    )


def _figures(spread: Spread) -> tuple[str, ...]:
    def with_bounds(value: float, low: float | None, high: float | None) -> str:
        return plain(value) if low is None or high is None else f"{plain(value)} [{plain(low)}, {plain(high)}]"

    return (
        f"{spread.n:,}",
        plain(spread.mean),
        with_bounds(spread.p50, spread.p50_low, spread.p50_high),
        plain(spread.p90),
        with_bounds(spread.p99, spread.p99_low, spread.p99_high),
    )


def token_table(result: LoadResult) -> Table:
    """How many tokens, how they were counted, and what they cost."""
    names = ("input_tokens", "output_tokens", "counted", "tokens_per_piece", "cost_usd", "in_flight", "client_cpu")
    columns = columns_of(StageRow, "target", "label", *names)
    return table(
        result.stages,
        columns,
        "Tokens are means per request, costs those of the stage; open: concurrent requests on average",
    )


def error_table(result: LoadResult) -> Table:
    """Failed requests of each stage by group and kind."""
    rows = []
    for row in result.stages:
        for group in GROUPS:
            kinds = {kind: count for kind, count in row.errors.items() if group_of(kind) == group}
            if kinds:
                kind_counts = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
                rows.append((row.target, row.label, group, str(sum(kinds.values())), kind_counts))
    return Table(("target", "load", "group", "requests", "kinds"), rows, "Requests without a complete answer")


def capacity_table(result: LoadResult) -> Table:
    """What a sweep has found."""
    columns = columns_of(Capacity, *Capacity.model_fields)
    return table(
        result.capacities,
        columns,
        f"A load is met if enough requests meet the objective ({result.objective}) and no queue keeps growing",
    )


def marks(result: LoadResult) -> list[str]:
    """Why figures may not be those of the target, a line per stage and reason."""
    sentences: list[str] = []
    for row in result.stages:
        sentences += [f"{row.target}, {row.label}: {mark}." for mark in row.marks]
    return sentences


def ceiling_note(ceiling: CeilingRow | None) -> str:
    """What this client can do at most."""
    if ceiling is None:
        return "This client's own limit was not measured."
    return (
        f"The client's own limit on this machine, against a local mock server with {ceiling.concurrency} concurrent "
        f"requests: "
        f"{ceiling.short:.0f} requests/s with one-token answers, {ceiling.long:.0f} with {ceiling.tokens} tokens."
    )


def objective(slo: SloConfig) -> str:
    """The latency objective in words."""
    bounds = (("first token", slo.ttft_ms), ("per output token", slo.itl_ms), ("last token", slo.e2e_ms))
    return (
        ", ".join(f"{name} within {bound:g} ms" for name, bound in bounds if bound is not None)
        or "every complete answer"
    )


def milliseconds(value: float | None) -> str:
    """`12.3 ms`, `1.85 s`."""
    if value is None:
        return "–"
    return f"{value / _SECOND:.3g} s" if value >= _SECOND else f"{value:.3g} ms"


def plain(value: float) -> str:
    """Milliseconds as a number: three digits, never in powers of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.01 else f"{value:.3f}"


def _pair(spread: Spread | None) -> str:
    return "–" if spread is None else f"{plain(spread.p50)} / {plain(spread.p99)}"


def load_report(run: OpenRun, result: LoadResult, records: Mapping[str, Sequence[Record]]) -> Report:
    """Draw the plots into the run folder, and say what they show. `records` are those of the stages, by their ids."""
    from agentlab.bench.load.plots import distribution, latency_by_load, rate_by_load, timeline

    if has_plots := any(row.answered for row in result.stages):
        names = {row.id: f"{row.target}, {row.label}" for row in result.stages}
        swept = [row for row in result.stages if result.mode != "sweep" or row.arrivals == result.stages[-1].arrivals]
        run.write_text(_BY_LOAD, latency_by_load(swept))
        run.write_text(_RATE, rate_by_load(swept))
        run.write_text(_DISTRIBUTION, distribution(records, names))
        run.write_text(_TIMELINE, timeline(records, names))
    targets = ", ".join(dict.fromkeys(row.target for row in result.stages))
    requests = sum(row.requests for row in result.stages)
    return Report(
        title=f"Speed of {targets}",
        verdict=[headline(result)],
        facts={"model": targets, "data": f"{requests} requests in {len(result.stages)} stages"},
        body=blocks(result, has_plots=has_plots),
        next_step=f"agentlab llm-bench compare {run.id} OTHER_RUN",
        caveats=[*silent(result), *marks(result), *result.notes],
    )


def blocks(result: LoadResult, *, has_plots: bool) -> list[Block]:
    """The body of the report, in the order of a reader's questions."""
    report_blocks: list[Block] = [speed_table(result)]
    if result.capacities:
        report_blocks += [Heading("Capacity"), capacity_table(result)]
    if has_plots:
        report_blocks += [
            Figure(_BY_LOAD, "Time to first and last token by load, p50 and p99"),
            Figure(_RATE, "All and good answers per second by load"),
        ]
    if result.stages:
        report_blocks += _details(result, has_plots=has_plots)
    return [
        *report_blocks,
        Heading("How the figures were measured"),
        Text(ceiling_note(result.ceiling)),
        Text(
            "Latency is measured from the scheduled send, not the actual one. The first token "
            "is the first chunk with text, reasoning or part of a tool call. Percentiles exclude failed requests, "
            "which count against the share of good answers. Percentiles interpolate linearly between order statistics."
        ),
    ]


def _details(result: LoadResult, *, has_plots: bool) -> list[Block]:
    detail_blocks: list[Block] = [Heading("Latencies"), latency_table(result)]
    if has_plots:
        detail_blocks += [
            Figure(_DISTRIBUTION, "Cumulative share of answers by time to first and last token"),
            Figure(_TIMELINE, "Latency of every request by send time"),
        ]
    if any(row.failed for row in result.stages):
        detail_blocks += [Heading("Errors"), error_table(result)]
    return [*detail_blocks, Heading("Tokens and cost"), token_table(result)]
