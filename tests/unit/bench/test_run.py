"""A measurement of quality that is gone on with: what earlier sessions spent counts, and is told at the end."""

from pathlib import Path
from typing import Any

import pytest

from agentlab.bench.config import BenchConfig
from agentlab.bench.run import BenchExperiment
from agentlab.config.workspace import Workspace
from agentlab.errors import BudgetExceededError
from agentlab.runs.context import Context
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec

LLM: dict[str, Any] = {
    "providers": {"script": {"kind": "scripted"}},
    "models": {
        name: {"provider": "script", "id": name, "price": {"input": 100, "output": 100}} for name in ("dear", "judge")
    },
    "roles": {"primary": ["dear"], "duplicate": ["judge"]},
    "ledger": {"enabled": False},
}


def experiment(home: Path, limit_usd: float) -> BenchExperiment:
    config = {
        "measure": "quality",
        "quality": {"types": ["exact", "open"], "per_type": 3},
        "targets": ["dear"],
        "llm": {**LLM, "budget": {"per_run_usd": limit_usd}},
    }
    return BenchExperiment(BenchConfig.model_validate(config), Context(Workspace(root=home, cache=home), {}))


def cost_of(run: OpenRun) -> float:
    costs = [event.data["usage"]["cost_usd"] for event in run.events if event.type == "llm.called"]
    return float(sum(cost for cost in costs if cost is not None))


def test_what_earlier_sessions_spent_counts_towards_the_budget(tmp_path: Path) -> None:
    uninterrupted = OpenRun.create(
        tmp_path / "runs", RunSpec("llm-bench", "", "", "h", 0, name="whole"), RunEnvironment()
    )
    with uninterrupted:
        expected, outcome = experiment(tmp_path, 100.0).run(uninterrupted)
        assert outcome.cost_usd == pytest.approx(cost_of(uninterrupted))
        assert {event.data["task"] for event in uninterrupted.events if event.type == "llm.called"} >= {"bench.judge"}
    limit_usd = cost_of(uninterrupted) * 0.7
    with (
        OpenRun.create(tmp_path / "runs", RunSpec("llm-bench", "", "", "h", 0, name="cut"), RunEnvironment()) as cut,
        pytest.raises(BudgetExceededError),
    ):
        experiment(tmp_path, limit_usd).run(cut)
    path, answered, cost_usd = cut.path, len(cut.events), cost_of(cut)
    assert 0 < cost_usd <= limit_usd
    for _ in range(2):
        with OpenRun.resume(path, RunEnvironment()) as resumed_run, pytest.raises(BudgetExceededError):
            experiment(tmp_path, limit_usd).run(resumed_run)
        assert cost_of(resumed_run) == cost_usd  # nothing more was asked
    with OpenRun.resume(path, RunEnvironment()) as last:
        result, outcome = experiment(tmp_path, 100.0).run(last)
        assert outcome.cost_usd == pytest.approx(cost_of(last)) == pytest.approx(cost_of(uninterrupted))
        assert len(last.events) > answered
    assert result.quality is not None
    assert expected.quality is not None
    assert result.quality.targets[0].quality == expected.quality.targets[0].quality
