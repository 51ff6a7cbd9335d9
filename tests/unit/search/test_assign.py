"""The coin of the light control: fair, seeded, and with a known probability."""

import numpy as np
import pytest

from agentlab.search.assign import assign


@pytest.mark.parametrize("probability", [0.2, 0.5])
def test_the_agent_gets_its_share(probability):
    rng = np.random.default_rng(0)
    draws = [assign(rng, probability) for _ in range(4_000)]
    assert np.mean([d.arm == "agent" for d in draws]) == pytest.approx(probability, abs=0.03)
    assert {d.probability for d in draws} == {probability}


def test_the_same_generator_gives_the_same_arm():
    first = [assign(np.random.default_rng([7, trial])).arm for trial in range(20)]
    assert first == [assign(np.random.default_rng([7, trial])).arm for trial in range(20)]
    assert set(first) == {"agent", "control"}


@pytest.mark.parametrize("probability", [0.0, 1.0, -1.0, float("nan")])
def test_both_arms_must_have_a_chance(probability):
    with pytest.raises(ValueError, match="both arms"):
        assign(np.random.default_rng(0), probability)
