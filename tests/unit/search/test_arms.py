"""A search arm is one file and one line: a row of the table, or an entry point of another package."""

from collections.abc import Callable

import numpy as np
import pytest
from pydantic import ValidationError

from agentlab.nas.config import NasConfig
from agentlab.search.arms import ARMS
from agentlab.search.space import SearchSpace, SpaceConfig

SPACE = SearchSpace.of(SpaceConfig.model_validate({"x": {"type": "int", "low": 1, "high": 9}}))
MIDDLE = """
from agentlab.search.types import Proposal

class Middle:
    name = "middle"

    def ask(self, history, n, rng):
        return [Proposal({"x": 5}, self.name)]

def arm(name, space, seed):
    return Middle()
"""


@pytest.mark.parametrize("name", ["gp", "tpe", "random", "ga", "one-plus-lambda", "cma-es", "map-elites"])
def test_an_arm_proposes_points_of_its_space(name: str) -> None:
    arm = ARMS.load(name)(name, SPACE, 0)
    (proposal,) = arm.ask([], 1, np.random.default_rng(0))
    assert (arm.name, SPACE.problems(proposal.params)) == (name, [])


def test_a_package_brings_an_arm_that_a_config_can_name(plug_in: Callable[[str, str, str], None]) -> None:
    with pytest.raises(ValidationError, match=r"'gp', 'tpe', .*'cma-es' or 'map-elites'"):
        NasConfig.model_validate({"search": {"base": "middle"}})
    plug_in("agentlab.arms", "middle = plugged_arm:arm", MIDDLE)
    name = NasConfig.model_validate({"search": {"base": "middle"}}).search.base
    assert ARMS.load(name)(name, SPACE, 0).ask([], 1, np.random.default_rng(0))[0].params == {"x": 5}
