"""The pictures of a study, as PNG bytes. Each function draws plain data; nothing here reads or writes a file."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentlab.nas.result import NasResult

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# Okabe-Ito: told apart by colour-blind readers; each source also has a marker of its own.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True, slots=True)
class Curve:
    """One trial's epochs."""

    run_id: str
    train_loss: Sequence[float]
    val_mse: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One held-out window of one channel, in the units of the file: known past, truth, forecast."""

    title: str
    past: "NDArray[np.float64]"  # [input]
    truth: "NDArray[np.float64]"  # [horizon]
    forecast: "NDArray[np.float64]"  # [horizon]


def error_by_trial(result: NasResult) -> bytes:
    """Validation error of every trial, marked by its source, with the best so far and the reference lines."""
    figure, axes = _figure()
    values = [t.val_mse for t in result.trials]
    sources = list(dict.fromkeys(t.source for t in result.trials))
    for index, source in enumerate(sources):
        points = [(n, t.val_mse) for n, t in enumerate(result.trials) if t.source == source and t.val_mse is not None]
        if points:
            axes.plot(*zip(*points, strict=True), _MARKERS[index % 6], color=_COLOURS[index % 6], label=source, ms=7)
    best: list[float] = []
    for value in values:
        best.append(min([*best[-1:], *([value] if value is not None else [])], default=float("nan")))
    axes.step(range(len(best)), best, where="post", color="0.4", lw=1.2, label="best so far")
    finite = [v for v in values if v is not None]
    top = max(finite, default=1.0) * 1.15
    for reference in result.references:
        if reference.val_mse <= top:
            axes.axhline(reference.val_mse, color="0.6", lw=0.9, ls="--")
            axes.annotate(
                reference.name,
                (1, reference.val_mse),
                xycoords=("axes fraction", "data"),
                xytext=(-4, 2),
                textcoords="offset points",
                ha="right",
                va="bottom",
                fontsize=8,
                color="0.35",
            )
    failed = [n for n, t in enumerate(result.trials) if t.error]
    if failed:
        axes.plot(failed, [top] * len(failed), "x", color="black", label="failed")
    axes.set(xlabel="trial", ylabel="validation MSE", title="Error by trial")
    _whole_numbers(axes)
    axes.legend(fontsize=8)
    return _png(figure)


def learning_curves(curves: Sequence[Curve], winner: str) -> bytes:
    """Validation error by epoch: the winner in colour, the others faint."""
    figure, axes = _figure()
    for curve in curves:
        mine = curve.run_id == winner
        axes.plot(
            range(1, len(curve.val_mse) + 1),
            curve.val_mse,
            marker=".",
            zorder=2 if mine else 1,
            color=_COLOURS[1] if mine else "0.75",
            lw=2 if mine else 1,
            label=f"{winner} (winner)" if mine else None,
        )
    axes.set(xlabel="epoch", ylabel="validation MSE", title="Learning curves of all trials")
    _whole_numbers(axes)
    axes.legend(fontsize=8)
    return _png(figure)


def learning_curve(curve: Curve) -> bytes:
    """One trial: training loss and validation error by epoch."""
    figure, axes = _figure(width=5.0, height=3.2)
    epochs = range(1, len(curve.val_mse) + 1)
    axes.plot(epochs, curve.train_loss, marker=".", color=_COLOURS[0], label="training loss")
    axes.plot(epochs, curve.val_mse, marker=".", color=_COLOURS[1], label="validation MSE")
    axes.set(xlabel="epoch", title=curve.run_id, xticks=list(epochs) if len(epochs) <= 12 else [])
    axes.legend(fontsize=8)
    return _png(figure)


def forecasts(windows: Sequence[Panel]) -> bytes:
    """The winner on held-out windows, beside what really happened."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.4 * len(windows)), layout="constrained")
    for index, window in enumerate(windows):
        axes = figure.add_subplot(len(windows), 1, index + 1)
        past, ahead = len(window.past), len(window.truth)
        axes.plot(range(-past, 0), window.past, color="0.6", lw=1, label="known")
        axes.plot(range(ahead), window.truth, color=_COLOURS[0], lw=1.6, label="truth")
        axes.plot(range(ahead), window.forecast, color=_COLOURS[1], lw=1.6, ls="--", label="forecast")
        axes.axvline(0, color="0.8", lw=0.8)
        axes.set_title(window.title, fontsize=10)
    lines, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper right", ncols=3, fontsize=8)
    figure.supxlabel("steps from the start of the forecast", fontsize=9)
    return _png(figure)


def _figure(width: float = 8.0, height: float = 4.2) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(visible=True, color="0.93")
    return figure, axes


def _whole_numbers(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _png(figure: "Figure") -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    metadata: Mapping[str, str | None] = {"Software": None}  # without the version, equal pictures are equal bytes
    figure.savefig(buffer, format="png", dpi=110, metadata=dict(metadata))
    return buffer.getvalue()
