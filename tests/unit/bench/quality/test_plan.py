"""What a measurement of quality is going to ask."""

import pytest

from agentlab.bench.quality.config import QualityConfig
from agentlab.bench.quality.plan import plan_quality
from agentlab.errors import UnknownNameError
from tests.unit.bench.conftest import llm_of


def test_what_cannot_be_asked_is_said_before_anybody_is_asked():
    llm = llm_of(["able"])
    with pytest.raises(UnknownNameError, match="Able"):
        plan_quality(QualityConfig(), llm, ["Able"])
    with pytest.raises(UnknownNameError, match=r"quality\.judge"):
        plan_quality(QualityConfig(judge="nobody"), llm)
    plan = plan_quality(QualityConfig(judge="able"), llm, ["able", "strategy:single"])
    assert plan.requests == 2 * (72 + 2 * 12)
