"""What a pipeline has spent counts when its run goes on, although its answers are kept elsewhere."""

from pathlib import Path

import pytest

from agentlab.config.workspace import Workspace
from agentlab.llm.config import LLMConfig
from agentlab.llm.router import Router
from agentlab.llm.types import Usage
from agentlab.pipeline.known_answers import ANSWERED
from agentlab.pipeline.models import Spending
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec


def test_the_router_of_a_run_that_goes_on_knows_what_its_answers_have_cost(tmp_path: Path) -> None:
    with OpenRun.create(tmp_path / "runs", RunSpec("pipeline", "", "", "h", 0, name="r"), RunEnvironment()) as run:
        for source, cost in (("model", 0.25), ("model", None), ("cache", 0.5), ("model", 0.125)):
            answer = {"prompt_tokens": 3, "completion_tokens": 2, "cost_usd": cost}
            run.emit(ANSWERED, "a", **{"from": source, "answer": answer})
    with OpenRun.resume(run.path, RunEnvironment()) as resumed:
        spending = Spending(resumed)
        assert spending.total_usage() == Usage(6, 4, 0.375)
        with Router(LLMConfig(), env={}, workspace=Workspace(tmp_path, tmp_path), recorder=spending) as router:
            assert router.usage.cost_usd == pytest.approx(0.375)
