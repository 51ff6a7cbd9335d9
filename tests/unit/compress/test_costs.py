"""What recipes are forecast to cost, by sizes: in turn, what is made once is counted once."""

import json
from pathlib import Path
from typing import Any

import pytest

from agentlab.compress.config import CompressConfig
from agentlab.compress.costs import (
    SHARED,
    cheapest,
    in_turn,
    look,
    opening,
    stages_of,
    weights_of,
    work_of,
    work_of_run,
)
from agentlab.compress.recipe import Recipe
from agentlab.compress.texts import MOST
from agentlab.models.base_model import BaseFile
from tests.unit.gguf.test_files import checkpoint
from tests.unit.train.tiny_base import tiny_checkpoint

SMOL = 134_515_008
KQUANT = {"quantizer": "kquant", "quantization_bits": 8}
CUT = {"structure": "width", "kept": 0.8, "recovery": "distil"}


def recipe(**settings: Any) -> Recipe:
    return Recipe.model_validate(settings)


def names(settings: dict[str, Any], existing_stages: set[str] | None = None) -> list[str]:
    stages = stages_of(Recipe.model_validate(settings), CompressConfig(), SMOL, existing_stages or ())
    return [stage.name for stage in stages if stage.work]


def test_a_recipe_has_the_stages_that_it_goes_through_and_is_measured_in_the_end() -> None:
    assert names(KQUANT) == ["write gguf", "quantize", "measure"]
    assert names(KQUANT, set(SHARED)) == ["quantize", "measure"]
    all_stages = ["calibrate", "cut", "teacher", "recover", "write gguf", "quantize", "measure"]
    assert names({**CUT, **KQUANT}) == all_stages
    mask = {"pruner": "wanda", "pruning_sparsity": 0.5, "quantizer": "gptq", "quantization_bits": 4}
    assert names(mask) == ["calibrate", "prune", "calibrate", "quantize", "measure"]
    assert names({**CUT, **mask})[:5] == ["calibrate", "cut", "calibrate", "prune", "teacher"]


def test_what_recipes_have_in_common_is_done_by_the_first_of_them() -> None:
    config, same_cut = CompressConfig(), Recipe.model_validate({**CUT, "quantizer": "kquant", "quantization_bits": 4})
    first, second, plain = in_turn([recipe(**CUT, **KQUANT), same_cut, recipe(**KQUANT)], config, SMOL)
    assert first > 3 * second
    assert work_of(stages_of(recipe(**KQUANT), config, SMOL)) == plain  # the base's own GGUF is not there


def test_sizes_drive_it() -> None:
    config = CompressConfig()
    larger_config = CompressConfig.model_validate({"text": {"held_out": 32}, "recovery": {"steps": 80}})
    cut = recipe(**CUT, **KQUANT)
    assert work_of(stages_of(cut, larger_config, SMOL)) > work_of(stages_of(cut, config, SMOL))
    assert work_of(stages_of(cut, config, 2 * SMOL)) > 1.8 * work_of(stages_of(cut, config, SMOL))
    assert work_of(opening(config, SMOL, imports=True)) > work_of(opening(config, SMOL))
    assert cheapest(config, SMOL)[0] == recipe(structure="none", **KQUANT)


def test_what_was_measured_on_one_machine_is_what_sizes_say() -> None:
    """CPU-seconds of the demo's recipes on two x86-64 cores, measuring included."""
    config = CompressConfig.model_validate({"text": {"calibration": 8, "held_out": 4}, "recovery": {"steps": 10}})
    recipes = [
        recipe(**KQUANT),
        recipe(quantizer="gptq", quantization_bits=4),
        recipe(quantizer="kquant", quantization_bits=4, importance=True),
    ]
    assert in_turn(recipes, config, SMOL) == pytest.approx([26.9, 39.3, 24.6], rel=0.15)


def test_a_run_has_its_portfolio_and_what_it_searches_beyond() -> None:
    one = CompressConfig.model_validate({"budget": {"trials": 4}, "beside": []})
    looks = 2 * work_of(look(MOST, one, SMOL))  # at a recipe near a bound, and at the winner
    sum_of_first = sum(in_turn(one.recipes, one, SMOL)[:4]) + work_of(opening(one, SMOL)) + looks
    assert work_of_run(one, one.recipes, SMOL, imports=False) == pytest.approx(sum_of_first)
    plain, also = ({"budget": {"trials": 8}, "beside": baselines} for baselines in ([], ["random"]))
    works = [
        work_of_run(CompressConfig.model_validate(fields), one.recipes, SMOL, imports=False) for fields in (plain, also)
    ]
    assert works[0] > sum_of_first
    assert works[1] > works[0]


def test_weights_are_counted_without_reading_them(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(tmp_path / "tiny")
    assert weights_of(BaseFile("tiny", tiny)) == pytest.approx(_numbers(tiny), rel=0.1)
    wide = tmp_path / "other"
    checkpoint(wide, "llama", hidden_size=256, num_attention_heads=8, head_dim=32)
    assert weights_of(BaseFile("other", wide)) == pytest.approx(_numbers(wide), rel=0.1)


def _numbers(folder: Path) -> int:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="np") as file:
        assert json.loads((folder / "config.json").read_text())
        return sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118 - no mapping
