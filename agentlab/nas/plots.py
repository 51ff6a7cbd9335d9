"""The pictures of a study, as SVG. Each function draws plain data; nothing here reads or writes a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import TYPE_CHECKING, Any

from agentlab.nas.result import NasResult
from agentlab.runs.figures import (
    COLOURS,
    MARKERS,
    SMALL,
    label_lines,
    legend_below,
    log_when_wide,
    new_figure,
    new_panels,
    svg,
    whole_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from agentlab.nas.windows import WindowForecast

_MAX_BARS = 12
_SMALL = 0.005  # a share that would be printed as 0 %


@dataclass(frozen=True, slots=True)
class Curve:
    """One trial's epochs."""

    run_id: str
    train_loss: Sequence[float]
    val_mse: Sequence[float]


def error_by_trial(result: NasResult, noise: float | None = None) -> str:
    """Validation error of every trial, marked by its source, with the best so far and the reference lines.

    `noise` is how far two seeds of one configuration lie apart, relative to their error: a band around the best.
    """
    figure, axes = new_figure(4.4)
    trials = [(number, trial, trial.val_mse) for number, trial in enumerate(result.trials)]
    finite = [value for _, _, value in trials if value is not None]
    _best_so_far(axes, [value for _, _, value in trials], noise)
    for index, source in enumerate(dict.fromkeys(trial.source for _, trial, _ in trials)):
        points = [(number, value) for number, trial, value in trials if trial.source == source and value is not None]
        if points:
            colour, marker = COLOURS[index % 6], MARKERS[index % 6]
            look: dict[str, Any] = {"ls": "", "ms": 7, "mec": "white", "mew": 0.6, "zorder": 3}
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=source, **look)
    for number, trial, value in trials:
        if trial.run_id == result.winner.run_id and value is not None:
            axes.plot(number, value, "o", ms=12, mfc="none", mec="black", mew=1.2, ls="", label="winner", zorder=4)
    _references(axes, {line.name: line.val_mse for line in result.references}, finite)
    failed = [number for number, trial, _ in trials if trial.error]
    if failed:
        top = axes.get_xaxis_transform()
        axes.plot(failed, [0.98] * len(failed), "x", color="black", ls="", label="failed", transform=top, clip_on=False)
    axes.set(xlabel="trial", ylabel="validation MSE", title="Error by trial")
    whole_numbers(axes)
    legend_below(figure)
    return svg(figure)


def _best_so_far(axes: "Axes", values: Sequence[float | None], noise: float | None) -> None:
    best: list[float] = []
    for value in values:
        best.append(min([*best[-1:], *([value] if value is not None else [])], default=float("nan")))
    steps = range(len(best))
    axes.step(steps, best, where="post", color="0.4", lw=1.2, label="best so far")
    if noise:
        low, high = [value * (1 - noise) for value in best], [value * (1 + noise) for value in best]
        axes.fill_between(steps, low, high, step="post", color="0.85", lw=0, label=f"noise ±{noise:.1%}")


def _references(axes: "Axes", lines: Mapping[str, float], values: Sequence[float]) -> None:
    """Reference lines that fit on the scale of the trials; the others are only named."""
    log_when_wide(axes, values)
    top = max(values, default=max(lines.values(), default=1.0)) * 1.15
    visible_lines = {name: value for name, value in lines.items() if value <= top}
    for value in visible_lines.values():
        axes.axhline(value, color="0.6", lw=0.9, ls="--", zorder=1)
    axes.set_ylim(axes.get_ylim()[0], top)
    label_lines(axes, visible_lines, {name: value for name, value in lines.items() if value > top})


def learning_curves(curves: Sequence[Curve], winner: str) -> str:
    """Validation error by epoch: the winner in colour, the others faint."""
    figure, axes = new_figure()
    faint: dict[str, Any] = {"marker": ".", "zorder": 2, "color": "0.7", "lw": 0.9}
    strong: dict[str, Any] = {"marker": "s", "zorder": 3, "color": COLOURS[1], "lw": 2, "label": f"{winner} (winner)"}
    for curve in curves:
        look = strong if curve.run_id == winner else faint
        axes.plot(range(1, len(curve.val_mse) + 1), curve.val_mse, **look)
    log_when_wide(axes, chain.from_iterable(curve.val_mse for curve in curves))
    axes.set(xlabel="epoch", ylabel="validation MSE", title="Learning curves of all trials")
    whole_numbers(axes)
    if any(curve.run_id == winner for curve in curves):  # its file may be gone
        legend_below(figure)
    return svg(figure)


def learning_curve(curve: Curve) -> str:
    """One trial: training loss and validation error by epoch."""
    figure, axes = new_figure(3.2)
    epochs = range(1, len(curve.val_mse) + 1)
    axes.plot(epochs, curve.train_loss, marker="o", ms=4, color=COLOURS[0], label="training loss")
    axes.plot(epochs, curve.val_mse, marker="s", ms=4, color=COLOURS[1], label="validation MSE")
    axes.set(xlabel="epoch", title=curve.run_id)
    whole_numbers(axes)
    legend_below(figure)
    return svg(figure)


def forecasts(column: str, windows: Sequence["WindowForecast"]) -> str:
    """The winner on held-out windows of the last target column, beside what really happened."""
    figure, panels = new_panels(len(windows), 2.1 * len(windows))
    for axes, window in zip(panels, windows, strict=True):
        past_length, future_length = len(window.past), len(window.future)
        axes.plot(range(-past_length, 0), window.past[:, -1], color="0.6", lw=1, label="known")
        axes.plot(range(future_length), window.future[:, -1], color=COLOURS[0], lw=1.6, label="truth")
        axes.plot(range(future_length), window.predicted[:, -1], color=COLOURS[1], lw=1.6, ls="--", label="forecast")
        axes.axvline(0, color="0.8", lw=0.8)
        title = f"{column}, forecast from {str(window.dates[0])[:16]}"
        axes.set_title(title.replace("$", r"\$"), fontsize=10, loc="left")
    panels[-1].set_xlabel("steps from the first forecast")
    legend_below(figure, panels[0])
    return svg(figure)


def importance_bars(shares: Mapping[str, float]) -> str:
    """What moved the validation error: each parameter's share, largest on top, small ones as one bar.

    Raises:
        ValueError: no share; the caller says in words that nothing stood out.
    """
    if not shares:
        raise ValueError("there are no importances to plot")
    ranked = sorted(shares.items(), key=lambda pair: -pair[1])
    bars = [pair for pair in ranked if pair[1] >= _SMALL][:_MAX_BARS]
    left_out = ranked[len(bars) :]
    if left_out:
        bars.append((f"{len(left_out)} others", sum(share for _, share in left_out)))
    figure, axes = new_figure(1.2 + 0.3 * len(bars))
    positions = range(len(bars))
    colours = ["0.75" if left_out and position == len(bars) - 1 else COLOURS[0] for position in positions]
    bar_container = axes.barh(positions, [share for _, share in bars], color=colours, height=0.7)
    axes.bar_label(bar_container, [f"{share:.0%}" for _, share in bars], padding=3, fontsize=SMALL)
    axes.set(yticks=positions, yticklabels=[name for name, _ in bars], xticks=[])
    figure.suptitle("What affects the validation error")
    axes.tick_params(axis="y", length=0, labelsize=SMALL)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    return svg(figure)


def error_by_step(steps: Sequence[float]) -> str:
    """Test MSE of the winner by forecast step, [horizon]; the first value is one step ahead."""
    figure, axes = new_figure()
    label = f"winner, mean {fmean(steps):.3g}"
    axes.plot(range(1, len(steps) + 1), steps, color=COLOURS[0], lw=2.2, label=label)
    log_when_wide(axes, steps)
    axes.set(xlabel="steps ahead", ylabel="test MSE", title="Error by forecast step")
    whole_numbers(axes)
    legend_below(figure)
    return svg(figure)


def paired_studies(pairs: Sequence[tuple[float, float]], metric: str) -> str:
    """One line per pair of studies, (without, with the agent), coloured by who has the lower value."""
    figure, axes = new_figure(4.2)
    winners = (
        ("agent better", COLOURS[0], MARKERS[0], [pair for pair in pairs if pair[1] < pair[0]]),
        ("agent worse", COLOURS[1], MARKERS[1], [pair for pair in pairs if pair[1] > pair[0]]),
        ("equal", "0.5", MARKERS[3], [pair for pair in pairs if pair[1] == pair[0]]),
    )
    for name, colour, marker, group in winners:
        for index, pair in enumerate(group):
            label = f"{name}: {len(group)} of {len(pairs)}" if index == 0 else None
            axes.plot((0, 1), pair, color=colour, marker=marker, ms=6, lw=1.4, alpha=0.9, label=label)
    for position, mean in enumerate(map(fmean, zip(*pairs, strict=True))):
        label = "mean" if position == 0 else None
        axes.plot((position - 0.08, position + 0.08), (mean, mean), color="black", lw=2, label=label)
    log_when_wide(axes, chain.from_iterable(pairs))
    axes.set(xlim=(-0.3, 1.3), ylabel=metric, title="Paired studies")
    axes.set_xticks((0, 1), ("without agent", "with agent"))
    legend_below(figure)
    return svg(figure)


def finalists(rows: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Validation error of each finalist, one dot per seed and a bar at their mean; lowest mean on top."""
    ranked = sorted(rows, key=lambda row: fmean(row[1]))
    figure, axes = new_figure(1.4 + 0.5 * len(ranked))
    for rank, (_, values) in enumerate(ranked):
        colour, mean = COLOURS[rank % 6], fmean(values)
        axes.plot(values, [rank] * len(values), MARKERS[rank % 6], color=colour, ms=7, mfc="none", mew=1.5, ls="")
        axes.plot((mean, mean), (rank - 0.3, rank + 0.3), color=colour, lw=2.5)
        axes.annotate(
            f"mean {mean:.4f}", (1.02, rank), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL,
            fontweight="bold" if rank == 0 else "normal",
        )  # fmt: skip
    axes.set(xlabel="validation MSE", title="Finalists, one mark per seed", ylim=(len(ranked) - 0.5, -0.5))
    axes.set_yticks(range(len(ranked)), [name for name, _ in ranked])
    return svg(figure)
