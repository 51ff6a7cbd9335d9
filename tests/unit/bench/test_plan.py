"""What is going to be done, and what it may cost."""

from typing import Any

import pytest

from agentlab.bench.config import BenchConfig
from agentlab.bench.plan import BenchPlan, plan_of

LLM = {
    "providers": {"script": {"kind": "scripted"}},
    "models": {
        "free": {"provider": "script", "id": "free", "price": {"input": 0, "output": 0}},
        "dear": {"provider": "script", "id": "dear", "price": {"input": 0, "output": 1000}},
        "unknown": {"provider": "script", "id": "unknown"},
    },
    "roles": {"primary": ["free", "dear", "unknown"]},
}


def plan(**changes: Any) -> BenchPlan:
    config = BenchConfig.model_validate({"llm": LLM, **changes})
    return plan_of(config, config.llm)


def test_every_stage_is_named_and_its_requests_are_counted() -> None:
    bench_plan = plan(targets=["free"], load={"concurrency": [1, 4], "requests": 10, "warmup": 2})
    assert bench_plan.stages == ["free 1 at a time", "free 4 at a time"]
    assert bench_plan.requests == 22


@pytest.mark.parametrize(
    ("targets", "cost"),
    [(["free"], 0.0), (["free", "dear"], 10 * 100 * 1000 / 1e6), (["unknown"], None), (["strategy:fallback"], None)],
)
def test_the_cost_is_that_of_the_price_list_and_unknown_where_it_has_none(
    targets: list[str], cost: float | None
) -> None:
    bench_plan = plan(targets=targets, load={"concurrency": [1], "requests": 10, "output_tokens": 100})
    assert bench_plan.most_cost_usd == cost


def test_a_sweep_says_that_its_stages_are_not_known_yet() -> None:
    bench_plan = plan(load={"mode": "sweep"})
    assert (bench_plan.stages, bench_plan.requests, bench_plan.most_cost_usd) == ([], None, None)
    assert "each stage depends on the previous ones" in str(bench_plan.blocks())


def test_a_check_and_a_quality_run_count_their_requests() -> None:
    assert plan(measure="check", check={"requests": 2}, targets=["free", "dear", "strategy:single"]).requests == 6
    assert plan(measure="quality", quality={"types": ["exact"], "per_type": 3}, targets=["free", "dear"]).requests == 6
