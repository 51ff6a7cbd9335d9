"""The nearest acceptable point."""

import numpy as np

from agentlab.search.screen import nearest
from agentlab.search.space import SearchSpace, SpaceConfig

SPACE = SearchSpace.of(
    SpaceConfig.model_validate(
        {
            "a": {"type": "int", "low": 0, "high": 9},
            "b": {"type": "int", "low": 0, "high": 9},
            "c": {"type": "categorical", "choices": ["x", "y"]},
        }
    )
)
POINT = {"a": 4, "b": 4, "c": "x"}


def test_it_is_near_and_accepted():
    neighbour = nearest(SPACE, POINT, lambda p: p["a"] >= 6, np.random.default_rng(0))
    assert neighbour == {"a": 6, "b": 4, "c": "x"}


def test_nothing_acceptable_is_none():
    assert nearest(SPACE, POINT, lambda p: False, np.random.default_rng(0)) is None


def test_the_same_generator_gives_the_same_neighbour():
    neighbours = [nearest(SPACE, POINT, lambda p: p != POINT, np.random.default_rng(3)) for _ in range(2)]
    assert neighbours[0] == neighbours[1]
