"""Fronts and hypervolume: known shapes, and what must hold for all points."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.stats.fronts import dominates, front, hypervolume

POINTS = st.lists(st.tuples(st.floats(0, 1.2), st.floats(0, 1.2), st.floats(0, 1.2)), max_size=8)


@pytest.mark.parametrize(
    ("points", "volume"),
    [
        ([], 0.0),
        ([(0.0, 0.0)], 1.0),
        ([(0.5, 0.5)], 0.25),
        ([(0.5, 0.5), (0.5, 0.5)], 0.25),
        ([(0.25, 0.75), (0.75, 0.25)], 0.3125),
        ([(1.0, 0.0), (0.0, 1.5)], 0.0),  # on the border, and beyond it
    ],
)
def test_the_volume_of_known_shapes(points: list[tuple[float, float]], volume: float) -> None:
    assert hypervolume(points, (1, 1)) == pytest.approx(volume)


@given(POINTS)
def test_the_volume_is_that_of_points_thrown_at_random(points: list[tuple[float, ...]]) -> None:
    thrown = np.random.default_rng(0).random((20_000, 3))
    hit = np.zeros(len(thrown), bool)
    for point in points:
        hit |= (thrown >= np.array(point)).all(axis=1)
    assert hypervolume(points, (1, 1, 1)) == pytest.approx(hit.mean(), abs=0.02)


@given(POINTS)
def test_the_front_covers_what_all_cover_and_nothing_in_it_is_beaten(points: list[tuple[float, ...]]) -> None:
    front_points = [points[index] for index in front(points)]
    assert hypervolume(front_points, (1, 1, 1)) == pytest.approx(hypervolume(points, (1, 1, 1)))
    assert not any(dominates(a, b) for a in front_points for b in front_points)
    assert all(any(dominates(a, b) or a == b for a in front_points) for b in points)
