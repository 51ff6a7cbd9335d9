"""The pictures of a benchmark, as PNG bytes. Each function draws plain data; nothing here reads or writes a file."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from agentlab.bench.load.records import Record
from agentlab.bench.load.result import StageRow
from agentlab.runs.figures import COLOURS, DECADE, MARKERS, log_when_wide, new_panels, plain_ticks, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MS = 1000.0
_MOST_POINTS = 2000  # of a timeline, per stage
_MOST_LINES = 12  # of a picture with a line per stage


def latency_by_load(rows: Sequence[StageRow]) -> bytes:
    """Time to the first token (left) and to the last (right) against the load: p50, and p99 dashed, per target."""
    figure, (left_axes, right_axes) = _figure(columns=2)
    closed = all(row.arrivals == "closed" for row in rows)
    for index, target in enumerate(dict.fromkeys(row.target for row in rows)):
        mine = sorted((row for row in rows if row.target == target), key=lambda row: row.value)
        colour, marker = COLOURS[index % 6], MARKERS[index % 6]
        firsts, lasts = [(row.value, row.ttft) for row in mine], [(row.value, row.e2e) for row in mine]
        for axes, pairs in ((left_axes, firsts), (right_axes, lasts)):
            points = [(value, spread) for value, spread in pairs if spread is not None]
            loads = [value for value, _ in points]
            axes.plot(loads, [spread.p50 for _, spread in points], color=colour, marker=marker, label=f"{target} p50")
            axes.plot(loads, [spread.p99 for _, spread in points], color=colour, marker=marker, ls="--", label="p99")
    for axes, title in ((left_axes, "To the first token"), (right_axes, "To the last token")):
        axes.set(xlabel="requests at a time" if closed else "requests per second", ylabel="ms", title=title)
        _from_zero_or_log(axes)
    _legend(figure, left_axes)
    return png(figure)


def rate_by_load(rows: Sequence[StageRow]) -> bytes:
    """Good answers per second (solid) and all answers (dotted) against the load."""
    figure, (axes,) = _figure(columns=1)
    closed = all(row.arrivals == "closed" for row in rows)
    for index, target in enumerate(dict.fromkeys(row.target for row in rows)):
        mine = sorted((row for row in rows if row.target == target), key=lambda row: row.value)
        loads = [row.value for row in mine]
        look: dict[str, Any] = {"color": COLOURS[index % 6], "marker": MARKERS[index % 6]}
        axes.plot(loads, [row.goodput for row in mine], label=f"{target} good", **look)
        axes.plot(loads, [row.request_rate for row in mine], ls=":", label=f"{target} all", **look)
    axes.set(xlabel="requests at a time" if closed else "requests per second", ylabel="answers per second")
    axes.set_title("Throughput")
    axes.set_ylim(bottom=0)
    _legend(figure, axes)
    return png(figure)


def distribution(records: Mapping[str, Sequence[Record]], names: Mapping[str, str]) -> bytes:
    """Share of the answers that began (left) and ended (right) within a time; a line per stage, named by `names`."""
    figure, (left_axes, right_axes) = _figure(columns=2)
    for index, (stage, stage_records) in enumerate(list(records.items())[:_MOST_LINES]):
        answered = [record for record in stage_records if record.is_answered]
        for axes, position in ((left_axes, 0), (right_axes, -1)):
            times = np.sort([(record.stamps[position] - record.scheduled) * _MS for record in answered])
            shares = np.arange(1, times.size + 1) / max(1, times.size)
            style = "-" if index < len(COLOURS) else "--"
            axes.step(times, shares, where="post", color=COLOURS[index % 6], ls=style, label=names[stage])
    for axes, title in ((left_axes, "To the first token"), (right_axes, "To the last token")):
        axes.set(xlabel="ms", ylabel="share of the answers", title=title, ylim=(0, 1.02))
        low, high = axes.get_xlim()
        if low > 0 and high > DECADE * low:
            axes.set_xscale("log")
            plain_ticks(axes.xaxis)
    _legend(figure, left_axes)
    return png(figure)


def timeline(records: Mapping[str, Sequence[Record]], names: Mapping[str, str]) -> bytes:
    """Time to the last token of every request by its time of sending, a panel per stage; crosses failed."""
    drawn_stages = list(records.items())[:_MOST_LINES]
    figure, panels = _figure(columns=1, rows=len(drawn_stages))
    for axes, (stage, stage_records) in zip(panels, drawn_stages, strict=True):
        step = max(1, len(stage_records) // _MOST_POINTS)
        answered = [record for record in stage_records[::step] if record.is_answered]
        failed = [record.sent for record in stage_records[::step] if record.error is not None]
        sent = [record.sent for record in answered]
        for position, colour in ((-1, COLOURS[0]), (0, COLOURS[4])):
            times = [(record.stamps[position] - record.scheduled) * _MS for record in answered]
            axes.plot(sent, times, ".", color=colour)
        axes.plot(failed, [0.97] * len(failed), "x", color="black", transform=axes.get_xaxis_transform())
        axes.set_title(names[stage].replace("$", r"\$"), fontsize=9, loc="left")
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.set_ylabel("ms")
    panels[-1].set_xlabel("seconds from the start of the stage")
    panels[0].legend(["to the last token", "to the first", "failed"], fontsize=8, frameon=False, loc="upper right")
    return png(figure)


def _figure(columns: int, rows: int = 1) -> "tuple[Figure, list[Axes]]":
    return new_panels(rows, columns, 9.0, 3.8 if rows == 1 else 1.0 + 1.7 * rows)


def _from_zero_or_log(axes: "Axes") -> None:
    heights = chain.from_iterable(np.asarray(line.get_ydata()) for line in axes.get_lines())
    if not log_when_wide(axes, [float(height) for height in heights]):
        axes.set_ylim(bottom=0)


def _legend(figure: "Figure", axes: "Axes") -> None:
    lines, labels = axes.get_legend_handles_labels()
    escaped_labels = [label.replace("$", r"\$") for label in labels]
    figure.legend(lines, escaped_labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
