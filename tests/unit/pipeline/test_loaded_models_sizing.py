"""How much room a model is planned with: estimate, experience and safety, of main and of GPU memory."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agentlab.gguf.metadata import read
from agentlab.gguf.trusted_settings import Proofs
from agentlab.pipeline.config import Resources
from agentlab.pipeline.loaded_models import MemoryBudget, PipelineLocalModel, Sizes, budget_of, settle
from agentlab.pipeline.registry import Availability
from agentlab.pipeline.settings import Engine
from tests.unit.pipeline.tiny_model import write_model

GIB = 1 << 30
ENGINE = Engine(context=512, batch=64, gpu_layers=0, flash=True, kv_type="f16")


def sizes(folder: Path, budget: MemoryBudget, **resources: float) -> Sizes:
    path = write_model(folder / "tiny.gguf")
    model = PipelineLocalModel("tiny", path, read(path), "sha256:0", ENGINE, ENGINE)
    return Sizes({"tiny": model}, Resources.model_validate(resources), budget, folder / "state")


def test_the_safety_factor_is_part_of_it(tmp_path: Path) -> None:
    plain = sizes(tmp_path, MemoryBudget(GIB, 0), ram_safety=1.0)("tiny", ENGINE)
    assert sizes(tmp_path, MemoryBudget(GIB, 0), ram_safety=2.0)("tiny", ENGINE) == pytest.approx(2 * plain, abs=2)


def test_what_loads_were_measured_to_take_counts_where_it_is_more(tmp_path: Path) -> None:
    model_sizes = sizes(tmp_path, MemoryBudget(GIB, 0), ram_safety=1.0)
    before = model_sizes("tiny", ENGINE)
    model_sizes.learn("tiny", ENGINE, before // 2)
    assert model_sizes("tiny", ENGINE) == before
    model_sizes.learn("tiny", ENGINE, before * 2)
    assert model_sizes("tiny", ENGINE) == before * 2


def test_gpu_memory_that_is_scarcer_decides(tmp_path: Path) -> None:
    """Half of the GPU's budget is half of the room, however little main memory it takes."""
    offloaded = replace(ENGINE, gpu_layers=-1)
    vram = sizes(tmp_path, MemoryBudget(GIB, GIB)).estimate("tiny", offloaded).vram
    assert vram > 0
    half = sizes(tmp_path, MemoryBudget(1000 * GIB, 2 * vram), vram_safety=1.0)("tiny", offloaded)
    assert half == pytest.approx(500 * GIB, rel=1e-3)


def test_without_a_gpu_nothing_that_needs_one_fits(tmp_path: Path) -> None:
    budget = MemoryBudget(GIB, 0)
    assert sizes(tmp_path, budget)("tiny", replace(ENGINE, gpu_layers=-1)) > budget.ram


def test_a_budget_is_what_was_said_or_most_of_the_machine() -> None:
    assert budget_of(Resources(ram_gib=2, vram_gib=1)) == MemoryBudget(2 * GIB, GIB)
    assert budget_of(Resources()).ram > 0


def settled(
    folder: Path, sound_variant: str, *, flash: bool = True, recorded: Mapping[str, bool] | None = None
) -> PipelineLocalModel:
    """The model on a machine where this way of computing was found to be sound."""
    path, proofs = write_model(folder / "tiny.gguf"), Proofs(folder / "kept")
    wished = replace(ENGINE, flash=flash).config(path, threads=1, memory_bytes=GIB)
    ways = ("repacked weights and flash attention", "repacked weights", "flash attention")
    proofs._keep(wished, {variant: "" if variant == sound_variant else "no" for variant in ways})
    return settle(
        Availability("tiny", "gguf", True, path, read(path)), wished, proofs, recorded or {}, proofs.known_settings
    )


def test_the_fastest_sound_settings_are_used_and_why_not_others_is_told(tmp_path: Path) -> None:
    model = settled(tmp_path, "repacked weights")
    assert (model.engine.flash, model.engine.repack) == (False, True)
    assert model.usable == model.engine
    assert "repacked weights and flash attention: no" in model.why
    without = settled(tmp_path, "flash attention", flash=False)
    assert without.engine == without.engine.plain()  # flash_attn: false is respected


def test_a_resumed_run_goes_by_its_own_settings_and_computes_with_what_is_sound_here(tmp_path: Path) -> None:
    before = {"flash": True, "repack": True, "wished": True}
    model = settled(tmp_path, "repacked weights", recorded=before)
    assert (model.engine.flash, model.engine.repack) == (True, True)  # of the key of every question
    assert (model.usable.flash, model.usable.repack) == (False, True)
    slower = {"flash": False, "repack": False, "wished": True}
    faster_here = settled(tmp_path, "repacked weights and flash attention", recorded=slower)
    assert faster_here.usable == faster_here.engine == faster_here.engine.plain()
    other_wish = settled(tmp_path, "repacked weights", flash=False, recorded=before)
    assert not other_wish.engine.flash
