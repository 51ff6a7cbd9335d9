"""The pictures of a benchmark, as SVG. Each function draws plain data; nothing here reads or writes a file."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from agentlab.bench.load.records import Record
from agentlab.bench.load.result import StageRow
from agentlab.runs.figures import (
    COLOURS,
    DECADE,
    MARKERS,
    SMALL,
    legend_below,
    log_when_wide,
    new_panels,
    plain_ticks,
    svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MS = 1000.0
_MOST_POINTS = 2000  # of a timeline, per stage
_MOST_LINES = 12  # of a picture with a line per stage


def latency_by_load(rows: Sequence[StageRow]) -> str:
    """Time to the first token and, below it, to the last against the load: p50, and p99 dashed, per target."""
    figure, (first_axes, last_axes) = new_panels(2, 5.6)
    closed = all(row.arrivals == "closed" for row in rows)
    for index, target in enumerate(dict.fromkeys(row.target for row in rows)):
        mine = sorted((row for row in rows if row.target == target), key=lambda row: row.value)
        colour, marker = COLOURS[index % 6], MARKERS[index % 6]
        firsts, lasts = [(row.value, row.ttft) for row in mine], [(row.value, row.e2e) for row in mine]
        for axes, pairs in ((first_axes, firsts), (last_axes, lasts)):
            points = [(value, spread) for value, spread in pairs if spread is not None]
            loads = [value for value, _ in points]
            axes.plot(loads, [spread.p50 for _, spread in points], color=colour, marker=marker, label=f"{target} p50")
            axes.plot(
                loads, [spread.p99 for _, spread in points], color=colour, marker=marker, ls="--", label=f"{target} p99"
            )
    for axes, title in ((first_axes, "Time to first token"), (last_axes, "Time to last token")):
        axes.set(xlabel="concurrent requests" if closed else "requests per second", ylabel="ms", title=title)
        _from_zero_or_log(axes)
    legend_below(figure, first_axes)
    return svg(figure)


def rate_by_load(rows: Sequence[StageRow]) -> str:
    """Good answers per second (solid) and all answers (dotted) against the load."""
    figure, (axes,) = new_panels(1, 3.4)
    closed = all(row.arrivals == "closed" for row in rows)
    for index, target in enumerate(dict.fromkeys(row.target for row in rows)):
        mine = sorted((row for row in rows if row.target == target), key=lambda row: row.value)
        loads = [row.value for row in mine]
        look: dict[str, Any] = {"color": COLOURS[index % 6], "marker": MARKERS[index % 6]}
        axes.plot(loads, [row.goodput for row in mine], label=f"{target} good", **look)
        axes.plot(loads, [row.request_rate for row in mine], ls=":", label=f"{target} all", **look)
    axes.set(xlabel="concurrent requests" if closed else "requests per second", ylabel="answers per second")
    axes.set_title("Throughput")
    axes.set_ylim(bottom=0)
    legend_below(figure, axes)
    return svg(figure)


def distribution(records: Mapping[str, Sequence[Record]], names: Mapping[str, str]) -> str:
    """Share of the answers that began and, below, ended within a time; a line per stage, named by `names`."""
    figure, (first_axes, last_axes) = new_panels(2, 5.6)
    for index, (stage, stage_records) in enumerate(list(records.items())[:_MOST_LINES]):
        answered = [record for record in stage_records if record.is_answered]
        for axes, position in ((first_axes, 0), (last_axes, -1)):
            times = np.sort([(record.stamps[position] - record.scheduled) * _MS for record in answered])
            shares = np.arange(1, times.size + 1) / max(1, times.size)
            style = "-" if index < len(COLOURS) else "--"
            axes.step(times, shares, where="post", color=COLOURS[index % 6], ls=style, label=names[stage])
    for axes, title in ((first_axes, "Time to first token"), (last_axes, "Time to last token")):
        axes.set(xlabel="ms", ylabel="share of answers", title=title, ylim=(0, 1.02))
        low, high = axes.get_xlim()
        if low > 0 and high > DECADE * low:
            axes.set_xscale("log")
            plain_ticks(axes.xaxis)
    legend_below(figure, first_axes)
    return svg(figure)


def timeline(records: Mapping[str, Sequence[Record]], names: Mapping[str, str]) -> str:
    """Time to the last token of every request by its time of sending, a panel per stage; crosses failed."""
    drawn_stages = list(records.items())[:_MOST_LINES]
    figure, panels = new_panels(len(drawn_stages), 1.2 + 1.8 * len(drawn_stages))
    for axes, (stage, stage_records) in zip(panels, drawn_stages, strict=True):
        step = max(1, len(stage_records) // _MOST_POINTS)
        answered = [record for record in stage_records[::step] if record.is_answered]
        failed = [record.sent for record in stage_records[::step] if record.error is not None]
        sent = [record.sent for record in answered]
        for position, colour, label in ((-1, COLOURS[0], "time to last token"), (0, COLOURS[4], "time to first token")):
            times = [(record.stamps[position] - record.scheduled) * _MS for record in answered]
            axes.plot(sent, times, ".", color=colour, label=label)
        axes.plot(
            failed, [0.97] * len(failed), "x", color="black", label="failed", transform=axes.get_xaxis_transform()
        )
        axes.set_title(names[stage].replace("$", r"\$"), fontsize=SMALL, loc="left")
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.set_ylabel("ms")
    panels[-1].set_xlabel("seconds since the start of the stage")
    legend_below(figure, panels[0])
    return svg(figure)


def _from_zero_or_log(axes: "Axes") -> None:
    heights = [float(height) for line in axes.get_lines() for height in np.asarray(line.get_ydata())]
    if not log_when_wide(axes, heights):
        axes.set_ylim(0, 1.08 * (max(heights, default=0.0) or 1.0))  # a marker at the top stays whole
