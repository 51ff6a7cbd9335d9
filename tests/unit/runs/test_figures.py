"""What all pictures share: scales, labels that do not overlap, panels, equal text."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.runs.figures import (
    COLOURS,
    label_lines,
    legend_below,
    log_when_wide,
    moved_apart,
    new_figure,
    new_panels,
    svg,
)


@pytest.mark.parametrize(
    ("values", "scale"), [([0.4, 3.9], "linear"), ([0.4, 4.1], "log"), ([], "linear"), ([0.0, 5.0], "linear")]
)
def test_more_than_a_decade_is_drawn_on_a_logarithmic_scale(values, scale):
    _, axes = new_figure()
    assert log_when_wide(axes, values) == (scale == "log")
    assert axes.get_yscale() == scale


def test_labels_name_their_line_and_those_beyond_the_scale():
    _, axes = new_figure()
    axes.set_ylim(0, 1)
    label_lines(axes, {"ridge": 0.41, "linear": 0.4}, {"last": 1.31})
    assert {text.get_text() for text in axes.texts} == {"ridge 0.41", "linear 0.4", "off the scale:\nlast 1.31"}


@given(st.lists(st.floats(0, 1), max_size=8).map(sorted), st.floats(0.7, 1))
def test_labels_are_moved_apart_in_order_and_stay_below_the_roof(positions, roof):
    moved = moved_apart(positions, 0.05, roof)
    assert all(b - a >= 0.05 - 1e-9 for a, b in pairwise(moved))
    assert all(position <= roof for position in moved)


def test_labels_that_do_not_touch_stay_where_they_are():
    assert moved_apart([0.1, 0.5, 0.9], 0.05, 1.0) == [0.1, 0.5, 0.9]
    assert moved_apart([0.5, 0.5], 0.05, 1.0) == pytest.approx([0.5, 0.55])


def test_panels_lie_one_below_the_other():
    figure, panels = new_panels(3, 6.0)
    figure.draw_without_rendering()
    tops = [axes.get_position().y1 for axes in panels]
    assert tops == sorted(tops, reverse=True)
    assert len({round(axes.get_position().x0, 2) for axes in panels}) == 1


def test_ink_follows_the_page():
    figure, axes = new_figure()
    axes.plot([0, 1], color="black")
    axes.plot([1, 0], color="0.8")
    axes.plot([1, 1], color=COLOURS[0])
    picture = svg(figure)
    assert "stroke: currentColor; stroke-opacity: 0.20" in picture
    assert COLOURS[0].lower() in picture
    assert not re.search(r"#000000|#cccccc|#ffffff", picture)
    assert "prefers-color-scheme: dark" in picture


def test_a_legend_lies_below_in_as_many_columns_as_fit():
    figure, axes = new_figure()
    for name in ("one", "two", "three costs $5", "two"):
        axes.plot([0, 1], label=name)
    legend_below(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two", r"three costs \$5"]
    assert legend._ncols == 2
    for name in ("x" * 60, "y" * 60):
        axes.plot([0, 1], label=name)
    legend_below(figure)
    assert figure.legends[1]._ncols == 1


def test_equal_figures_are_equal_bytes():
    pictures = {svg(new_figure()[0]) for _ in range(2)}
    assert len(pictures) == 1
    assert pictures.pop().startswith("<svg")


def test_a_label_is_text_whatever_it_holds():
    figure, axes = new_figure()
    axes.plot([0, 1], label="</svg><script>alert(1)</script>\x1b]]>")
    axes.set_title("温度 <img src=x onerror=alert(1)>")
    legend_below(figure)
    picture = svg(figure)
    assert not re.search(r"<script|<img|\x1b", picture)
    assert picture.count("</svg>") == 1
    assert "温度" in picture
    ElementTree.fromstring(picture)
