"""The plan as it is shown."""

from collections.abc import Collection
from typing import Any

from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.graph import unroll
from agentlab.pipeline.loaded_models import MemoryBudget
from agentlab.pipeline.plan import PipelinePlan, plan_of
from agentlab.pipeline.schedule.plan import schedule
from agentlab.pipeline.schedule.types import Room
from agentlab.pipeline.units import units
from agentlab.runs.document import Text

CONFIG: dict[str, Any] = {
    "models": {"m": {"file": "m.gguf"}, "n": {"file": "n.gguf"}},
    "base_pipeline": {"stages": [{"id": "draft", "model": "m"}, {"id": "final", "model": "n"}]},
}


def plan(inputs: int, reused_stages: Collection[str] = ()) -> PipelinePlan:
    config = PipelineConfig.model_validate(CONFIG)
    all_units = units(unroll(config.stages), config)
    jobs = [unit.job() for unit in all_units if unit.step.stage.id not in reused_stages]
    order = schedule(jobs, Room({"m": 5, "n": 7}, {"m": 1.0, "n": 1.0}, 10))
    return plan_of(order, all_units, [], MemoryBudget(10, 0), [], inputs, reused_stages)


def shown(pipeline_plan: PipelinePlan) -> list[tuple[str, str, str, int]]:
    return [(step.action, step.what, step.model, step.answers) for step in pipeline_plan.steps]


def test_it_loads_asks_and_unloads() -> None:
    assert shown(plan(3)) == [
        ("load", "", "m", 0),
        ("ask", "draft", "m", 3),
        ("unload", "", "m", 0),
        ("load", "", "n", 0),
        ("ask", "final", "n", 3),
    ]


def test_what_a_rerun_takes_over_is_neither_asked_nor_loaded() -> None:
    pipeline_plan = plan(1, {"draft"})
    assert shown(pipeline_plan) == [("take over", "draft", "", 0), ("load", "", "n", 0), ("ask", "final", "n", 1)]
    assert (pipeline_plan.loads, pipeline_plan.peak_bytes) == (1, 7)


def test_without_an_input_it_counts_one() -> None:
    pipeline_plan = plan(0)
    assert pipeline_plan.inputs == 0
    assert [answers for *_, answers in shown(pipeline_plan) if answers] == [1, 1]
    assert any(
        isinstance(block, Text) and block.text.startswith("For one input: 2 model loads")
        for block in pipeline_plan.blocks()
    )
