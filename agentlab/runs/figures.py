"""How pictures look: colours, axes, labels that do not overlap, SVG for light and dark pages."""

import io
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentlab.runs.sanitize import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe-Ito: told apart by colour-blind readers; each series also has a marker of its own.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
DECADE = 10.0
SMALL = 9  # points, of labels and legends
_LEGEND, _SAMPLE = 62, 7  # characters of a row of a legend, and how many the sample of a line takes
_WIDTH = 5.2  # inches: a page of 400 px shows letters of 10 points at nearly their size
_LINE = 0.045  # height of a small label, as a share of the axes
_MARGIN = 1.03  # where labels beside the axes begin


def new_figure(height: float = 3.6) -> "tuple[Figure, Axes]":
    """A figure as wide as a phone, with one grid behind the data; inches."""
    figure, (axes,) = new_panels(1, height)
    return figure, axes


def new_panels(count: int, height: float) -> "tuple[Figure, list[Axes]]":
    """A figure of several panels, one below the other, each with its grid behind the data; inches in all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    panels = [figure.add_subplot(count, 1, index + 1) for index in range(count)]
    for axes in panels:
        axes.grid(visible=True, color="0.93")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def legend_below(figure: "Figure", *axes: "Axes") -> None:
    """One legend of what these axes (none: all axes) have named, below the figure, in as many columns as fit."""
    labelled: dict[str, Any] = {}
    for panel in axes or figure.axes:
        for artist, label in zip(*panel.get_legend_handles_labels(), strict=True):
            labelled.setdefault(label.replace("$", r"\$"), artist)
    if labelled:
        columns = max(1, min(len(labelled), _LEGEND // (max(map(len, labelled)) + _SAMPLE)))
        look: dict[str, Any] = {"ncols": columns, "fontsize": SMALL, "frameon": False}
        figure.legend(list(labelled.values()), list(labelled), loc="outside lower center", **look)


def whole_numbers(axes: "Axes") -> None:
    """Ticks of x at whole numbers only: there is no trial 2.5."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def log_when_wide(axes: "Axes", values: Iterable[float]) -> bool:
    """A logarithmic y where the values span more than a decade; says whether they do."""
    positive = [value for value in values if value > 0]
    wide = bool(positive) and max(positive) > DECADE * min(positive)
    if wide:
        axes.set_yscale("log")
        plain_ticks(axes.yaxis)
    return wide


def plain_ticks(axis: "Axis") -> None:
    """Ticks of a logarithmic axis as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def label_lines(axes: "Axes", lines: Mapping[str, float], beyond: Mapping[str, float]) -> None:
    """Name horizontal lines in the right margin, moved apart where they are close, below those beyond the scale.

    Set the scale and limits of y first.
    """
    names = sorted(lines, key=lambda name: lines[name])
    to_share = axes.transData + axes.transAxes.inverted()
    heights = [float(to_share.transform((0, lines[name]))[1]) for name in names]
    look: dict[str, Any] = {"fontsize": SMALL, "color": "0.3"}
    off_scale = [f"{name} {value:.3g}" for name, value in beyond.items()]
    if off_scale:
        text = "\n".join(["off the scale:", *off_scale])
        axes.annotate(text, (_MARGIN, 1), xycoords="axes fraction", va="top", annotation_clip=False, **look)
    roof = 1 - _LINE * (len(off_scale) + 1.5) if off_scale else 1.0
    for name, height in zip(names, moved_apart(heights, _LINE, roof), strict=True):
        axes.annotate(
            f"{name} {lines[name]:.3g}",
            (1, lines[name]),
            xycoords=("axes fraction", "data"),
            xytext=(_MARGIN, height),
            textcoords="axes fraction",
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.6", "lw": 0.6, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)},
            **look,
        )


def moved_apart(positions: Sequence[float], gap: float, roof: float) -> list[float]:
    """Rising places, moved up as little as keeps neighbours a gap apart, then down as far as keeps all below `roof`."""
    moved: list[float] = []
    for position in positions:
        moved.append(max(position, moved[-1] + gap) if moved else position)
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], roof)
        roof = moved[index] - gap
    return moved


def svg(figure: "Figure") -> str:
    """The figure as SVG: equal figures are equal text. Its ink is the page's, on light and on dark.

    Greys become the ink at an opacity, so a picture is drawn once for both. Text stays text, in the reader's font.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    FigureCanvasSVG(figure)
    with (
        rc_context({"svg.fonttype": "none", "svg.hashsalt": "agentlab", "font.sans-serif": ["DejaVu Sans"]}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's font draws it, this one measures
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator")))
    text = visible(buffer.getvalue())
    root = text.index("<svg")
    start = text.index(">", root) + 1
    return (
        text[root:start].replace("<svg", '<svg class="figure" fill="currentColor"', 1)
        + _STYLE
        + _follow_ink(text[start:])
    )


_STYLE = """
<style>
svg.figure { color: #1c1e21; --paper: #fff; }
@media (prefers-color-scheme: dark) { svg.figure { color: #e6e7e9; --paper: #17191c; } }
</style>"""


def _follow_ink(markup: str) -> str:
    """Greys of `markup` as the ink at an opacity, white as the paper."""

    def replace_grey(match: re.Match[str]) -> str:
        name, level = match[1], int(match[2], 16) / 255
        if level == 1:
            return f"{name}: var(--paper)"
        return f"{name}: currentColor" + (f"; {name}-opacity: {1 - level:.2f}" if level else "")

    return re.sub(r"(stroke|fill): #([0-9a-f]{2})\2\2", replace_grey, markup)
