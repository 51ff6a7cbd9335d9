"""What vLLM would say to an adapter, said before it is served."""

from pathlib import Path

import pytest

from agentlab.lora.exporting import plan_serving
from agentlab.lora.reading import Adapter
from tests.unit.lora.deltas import random_delta
from tests.unit.lora.folders import DOWN, QUERY, deltas, write_folder


def test_the_flags_name_every_adapter_and_the_next_rank_vllm_knows(tmp_path: Path) -> None:
    adapters = {
        "critic": Adapter(write_folder(tmp_path / "a", deltas(1, rank=4))),
        "poet": Adapter(write_folder(tmp_path / "b", deltas(2, rank=24))),
    }
    plan = plan_serving(adapters)
    assert plan.problems == ()
    assert plan.flags == (
        *("--enable-lora", "--max-loras", "2", "--max-lora-rank", "32", "--lora-modules"),
        *(f"critic={tmp_path / 'a'}", f"poet={tmp_path / 'b'}"),
    )


MIXED = {QUERY: random_delta((8, 6), 4, seed=1), DOWN: random_delta((6, 12), 8, seed=2)}


@pytest.mark.parametrize(
    ("name", "modules", "config", "reason"),
    [
        ("mixed", MIXED, {"r": 4, "rank_pattern": {"down_proj": 8}}, "differ in rank or alpha"),
        ("alphas", deltas(1), {"alpha_pattern": {"down_proj": 99}}, "differ in rank or alpha"),
        ("large", {QUERY: random_delta((8, 6), 600, seed=1)}, {}, "rank 600"),
        ("turned", deltas(1), {"fan_in_fan_out": True}, "transposed"),
        ("head", {"lm_head": random_delta((8, 6), 4, seed=1)}, {"target_modules": ["lm_head"]}, "outside"),
        ("a name=", deltas(1), {}, "cannot be used in --lora-modules"),
    ],
)
def test_what_it_would_refuse_or_get_wrong_is_said(
    tmp_path: Path, name: str, modules: dict[str, object], config: dict[str, object], reason: str
) -> None:
    adapter = Adapter(write_folder(tmp_path / "a", modules, **config))  # type: ignore[arg-type]
    (problem,) = plan_serving({name: adapter}).problems
    assert reason in problem


def test_equal_scales_of_different_ranks_are_right_for_it(tmp_path: Path) -> None:
    config = {"r": 4, "rank_pattern": {"down_proj": 8}, "alpha_pattern": {"down_proj": 16}}
    assert plan_serving({"mixed": Adapter(write_folder(tmp_path / "a", MIXED, **config))}).problems == ()


def test_one_server_has_one_base_model(tmp_path: Path) -> None:
    adapters = {
        name: Adapter(write_folder(tmp_path / name, deltas(1), base_model_name_or_path=name)) for name in ("one", "two")
    }
    assert "these adapters have 2" in plan_serving(adapters).problems[0]
