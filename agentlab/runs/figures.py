"""How pictures look: colours, axes, labels that do not overlap, PNG bytes."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe-Ito: told apart by colour-blind readers; each series also has a marker of its own.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
DECADE = 10.0
_LINE = 0.045  # height of a small label, as a share of the axes
_MARGIN = 1.03  # where labels beside the axes begin


def new_figure(width: float = 8.0, height: float = 4.2) -> "tuple[Figure, Axes]":
    """A figure of this size in inches, with one grid behind the data."""
    figure, (axes,) = new_panels(1, 1, width, height)
    return figure, axes


def new_panels(rows: int, columns: int, width: float, height: float) -> "tuple[Figure, list[Axes]]":
    """A figure of several panels, row by row, each with its grid behind the data; inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    panels = [figure.add_subplot(rows, columns, index + 1) for index in range(rows * columns)]
    for axes in panels:
        axes.grid(visible=True, color="0.93")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


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
    look: dict[str, Any] = {"fontsize": 8, "color": "0.3"}
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


def png(figure: "Figure") -> bytes:
    """The figure as bytes: equal figures are equal bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    metadata: Mapping[str, str | None] = {"Software": None}  # the version would differ between equal pictures
    figure.savefig(buffer, format="png", dpi=110, metadata=dict(metadata))
    return buffer.getvalue()
