"""What all pictures share: scales, labels that do not overlap, panels, equal bytes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.runs.figures import label_lines, log_when_wide, moved_apart, new_figure, new_panels, png


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


def test_panels_lie_row_by_row():
    figure, panels = new_panels(2, 3, 6.0, 4.0)
    figure.draw_without_rendering()
    corners = [(round(axes.get_position().x0, 2), -round(axes.get_position().y0, 2)) for axes in panels]
    assert len(corners) == 6
    assert corners == sorted(corners, key=lambda corner: (corner[1], corner[0]))


def test_equal_figures_are_equal_bytes():
    pictures = {png(new_figure()[0]) for _ in range(2)}
    assert len(pictures) == 1
    assert pictures.pop().startswith(b"\x89PNG")
