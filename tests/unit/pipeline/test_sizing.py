"""How much room a model is planned with: estimate, experience and safety, of main and of GPU memory."""

from dataclasses import replace
from pathlib import Path

import pytest

from agentlab.gguf.metadata import read
from agentlab.pipeline.config import Resources
from agentlab.pipeline.settings import Engine
from agentlab.pipeline.sizing import Budget, LocalModel, Sizes, budget_of
from tests.unit.pipeline.tiny_model import write_model

GIB = 1 << 30
ENGINE = Engine(context=512, batch=64, gpu_layers=0, flash=True, kv_type="f16")


def sizes(folder: Path, budget: Budget, **resources: float) -> Sizes:
    path = write_model(folder / "tiny.gguf")
    model = LocalModel("tiny", path, read(path), "sha256:0", ENGINE, ENGINE)
    return Sizes({"tiny": model}, Resources.model_validate(resources), budget, folder / "state")


def test_the_safety_factor_is_part_of_it(tmp_path: Path) -> None:
    plain = sizes(tmp_path, Budget(GIB, 0), ram_safety=1.0)("tiny", ENGINE)
    assert sizes(tmp_path, Budget(GIB, 0), ram_safety=2.0)("tiny", ENGINE) == pytest.approx(2 * plain, abs=2)


def test_what_loads_were_measured_to_take_counts_where_it_is_more(tmp_path: Path) -> None:
    known = sizes(tmp_path, Budget(GIB, 0), ram_safety=1.0)
    before = known("tiny", ENGINE)
    known.learn("tiny", ENGINE, before // 2)
    assert known("tiny", ENGINE) == before
    known.learn("tiny", ENGINE, before * 2)
    assert known("tiny", ENGINE) == before * 2


def test_gpu_memory_that_is_scarcer_decides(tmp_path: Path) -> None:
    """Half of the GPU's budget is half of the room, however little main memory it takes."""
    offloaded = replace(ENGINE, gpu_layers=-1)
    vram = sizes(tmp_path, Budget(GIB, GIB)).estimate("tiny", offloaded).vram
    assert vram > 0
    half = sizes(tmp_path, Budget(1000 * GIB, 2 * vram), vram_safety=1.0)("tiny", offloaded)
    assert half == pytest.approx(500 * GIB, rel=1e-3)


def test_without_a_gpu_nothing_that_needs_one_fits(tmp_path: Path) -> None:
    budget = Budget(GIB, 0)
    assert sizes(tmp_path, budget)("tiny", replace(ENGINE, gpu_layers=-1)) > budget.ram


def test_a_budget_is_what_was_said_or_most_of_the_machine() -> None:
    assert budget_of(Resources(ram_gib=2, vram_gib=1)) == Budget(2 * GIB, GIB)
    assert budget_of(Resources()).ram > 0
