"""The quality of the embedded model at a handful of items, end to end: it knows something, and not everything."""

import asyncio
import os

import pytest
import yaml

from agentlab.bench.check.asking import run_check
from agentlab.bench.config import CheckConfig
from agentlab.bench.quality.asking import run_quality
from agentlab.bench.quality.config import QualityConfig
from agentlab.config.workspace import Workspace
from agentlab.llm.config import LLMConfig
from agentlab.llm.router import Router
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec

pytestmark = pytest.mark.model


@pytest.fixture
def llm(pytestconfig) -> LLMConfig:
    preset = pytestconfig.rootpath / "configs" / "llm" / "embedded.yaml"
    return LLMConfig.model_validate(yaml.safe_load(preset.read_text()), context={"env": {}})


def test_the_embedded_model_is_checked_and_scored(llm, workspace):
    async def go(run: OpenRun):
        async with Router(llm, env={}, workspace=Workspace.locate(os.environ, workspace)) as router:
            checked = await run_check(CheckConfig(requests=2), llm, router)
            config = QualityConfig(types=("exact", "classify", "json"), per_type=3)
            return checked, await run_quality(config, llm, router, run)

    with OpenRun.create(workspace / "runs", RunSpec("llm-bench", "", "", "h", 0), RunEnvironment()) as run:
        checked, result = asyncio.run(go(run))
    (row,) = checked.models
    assert (row.successes, row.local, row.free, row.error_group) == (2, True, True, None)
    assert 0 < row.first_seconds <= row.total_seconds
    assert [(advice.model, advice.role) for advice in checked.recommendations] == [("embedded", "primary")]
    (target,) = result.targets
    assert (target.items, target.scored, target.failed) == (9, 9, 0)
    assert 0 < target.quality < 1
    assert target.cost_usd == 0
    assert target.per_second > 0
    assert target.output_tokens > 9
