"""Random search."""

import numpy as np

from agentlab.search.arms import RandomProposer
from agentlab.search.space import SearchSpace, SpaceConfig

SPACE = SearchSpace.of(
    SpaceConfig.model_validate(
        {
            "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
            "n": {"type": "int", "low": 1, "high": 3},
            "k": {"type": "categorical", "choices": ["x", "y"]},
        }
    )
)


def test_every_value_has_its_share_and_log_scales_are_even_in_the_exponent():
    points = [p.params for p in RandomProposer(SPACE).ask([], 4_000, np.random.default_rng(0))]
    assert abs(np.mean([p["lr"] < 1e-2 for p in points]) - 0.5) < 0.03
    for n in (1, 2, 3):
        assert abs(np.mean([p["n"] == n for p in points]) - 1 / 3) < 0.03
    assert abs(np.mean([p["k"] == "x" for p in points]) - 0.5) < 0.03


def test_it_is_seeded():
    proposals = [RandomProposer(SPACE).ask([], 3, np.random.default_rng(1)) for _ in range(2)]
    assert proposals[0] == proposals[1]
    assert {p.source for p in proposals[0]} == {"random"}
