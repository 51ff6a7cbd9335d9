"""Child folders are whole or absent, hold what the operator made, and take one module's memory."""

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from agentlab.errors import DataError, StorageError, UsageError
from agentlab.lora import writing
from agentlab.lora.blend import concatenate, weighted_sum
from agentlab.lora.delta import LoraDelta
from agentlab.lora.reading import Adapter, total_rank
from agentlab.lora.writing import derive, write_adapter
from tests.unit.lora.deltas import TOLERANCE, dense, random_delta, relative_error
from tests.unit.lora.folders import DOWN, QUERY, deltas, write_folder


@pytest.fixture
def parents(tmp_path: Path) -> tuple[Adapter, Adapter]:
    """Of different rank, targets and alpha."""
    first = write_folder(tmp_path / "a", {QUERY: random_delta((8, 6), 2, seed=1)}, target_modules=["q_proj"])
    return Adapter(first), Adapter(write_folder(tmp_path / "b", deltas(2, rank=5), lora_alpha=10, use_rslora=True))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def blend(_: str, module_deltas: list[LoraDelta]) -> LoraDelta:
    return concatenate(module_deltas, (0.6, 0.4))


def test_the_child_of_different_parents_holds_the_sum_of_all_modules(
    tmp_path: Path, parents: tuple[Adapter, Adapter]
) -> None:
    derive(parents, tmp_path / "child", total_rank(parents), blend, metadata={"made": "for a test"})
    with Adapter(tmp_path / "child") as child:
        first, second = parents
        both = 0.6 * first.delta(QUERY).dense() + 0.4 * second.delta(QUERY).dense()
        assert relative_error(child.delta(QUERY).dense(), both.numpy()) < TOLERANCE
        assert relative_error(child.delta(DOWN).dense(), 0.4 * second.delta(DOWN).dense().numpy()) < TOLERANCE
        assert {(module.rank, module.scale) for module in child.modules.values()} == {(7, 1.0)}
        assert child.settings.base == ("some/base", "")
        assert child.settings.target_modules == [QUERY, DOWN]
    with safe_open(tmp_path / "child" / "adapter_model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "made": "for a test"}


def test_parents_with_the_same_targets_pass_them_on(tmp_path: Path) -> None:
    family = [Adapter(write_folder(tmp_path / name, deltas(seed))) for seed, name in enumerate("ab")]
    derive(family, tmp_path / "child", 4, lambda _, module_deltas: weighted_sum(module_deltas, (0.5, 0.5), 4).delta)
    assert Adapter(tmp_path / "child").settings.target_modules == ["q_proj", "down_proj"]


def test_parents_that_leave_layers_out_pass_on_the_names_that_are_left(tmp_path: Path) -> None:
    modules = {DOWN: deltas(1)[DOWN]}
    parent = Adapter(write_folder(tmp_path / "a", modules, target_modules=["down_proj"], layers_to_transform=[1]))
    derive([parent], tmp_path / "child", 4, lambda _, module_deltas: module_deltas[0])
    assert Adapter(tmp_path / "child").settings.target_modules == [DOWN]


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("bfloat16", 1e-2), ("float16", 1e-3)])
def test_children_can_be_stored_smaller(
    tmp_path: Path, parents: tuple[Adapter, Adapter], dtype: str, error: float
) -> None:
    derive(parents[1:], tmp_path / "child", 5, lambda _, module_deltas: module_deltas[0], dtype=dtype)
    with Adapter(tmp_path / "child") as child:
        assert child.delta(QUERY).a.dtype == getattr(torch, dtype)
        assert relative_error(child.delta(QUERY).dense(), parents[1].delta(QUERY).dense().numpy()) < error


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, parents: tuple[Adapter, Adapter]) -> None:
    def fails(name: str, module_deltas: list[LoraDelta]) -> LoraDelta:
        if name == DOWN:
            raise RuntimeError("half way")
        return module_deltas[1]

    with pytest.raises(RuntimeError, match="half way"):
        derive(parents, tmp_path / "child", 7, fails)
    assert names_in(tmp_path) == ["a", "b"]


def test_what_a_killed_process_left_is_removed_and_a_living_one_is_not_touched(
    tmp_path: Path, parents: tuple[Adapter, Adapter]
) -> None:
    dead_process = subprocess.Popen(["true"])
    dead_process.wait()
    for owner in (dead_process.pid, os.getpid()):
        (tmp_path / f".making-adapter-{owner}-0badcafe").mkdir()
    derive(parents, tmp_path / "child", 7, blend)
    assert names_in(tmp_path) == [f".making-adapter-{os.getpid()}-0badcafe", "a", "b", "child"]


def test_a_full_disk_is_noticed_before_the_work(
    tmp_path: Path, parents: tuple[Adapter, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_SLACK", 1 << 60)

    def never(_: str, __: list[LoraDelta]) -> LoraDelta:
        raise AssertionError("no work was to be done")

    with pytest.raises(StorageError, match="MiB free") as caught:
        derive(parents, tmp_path / "child", 7, never)
    assert "--out" in (caught.value.hint or "")
    assert not (tmp_path / "child").exists()


def test_a_disk_that_fills_up_half_way_leaves_nothing(
    tmp_path: Path, parents: tuple[Adapter, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        derive(parents, tmp_path / "child", 7, blend)
    assert names_in(tmp_path) == ["a", "b"]


def test_a_folder_in_the_way_is_kept(tmp_path: Path, parents: tuple[Adapter, Adapter]) -> None:
    with pytest.raises(UsageError, match="already exists"):
        derive(parents, parents[0].path, 7, blend)
    assert len(Adapter(parents[0].path).modules) == 1


def test_deltas_that_do_not_fit_are_refused(tmp_path: Path, parents: tuple[Adapter, Adapter]) -> None:
    wrong = {
        "rank": lambda _, module_deltas: concatenate((*module_deltas, *module_deltas), (1, 1, 1, 1)),
        "shape": lambda _, module_deltas: module_deltas[1].transpose(),
        "value": lambda _, module_deltas: module_deltas[1].scaled(float("inf")),
    }
    for name, operator in wrong.items():
        with pytest.raises(DataError, match=r"expected .* rank|infinite or NaN"):
            derive(parents, tmp_path / name, 7, operator)
    with pytest.raises(UsageError, match="int8"):
        derive(parents, tmp_path / "type", 7, blend, dtype="int8")


def test_too_large_numbers_for_a_small_type_are_refused(tmp_path: Path) -> None:
    wide = {name: LoraDelta(1e6 * delta.a, 1e-6 * delta.b) for name, delta in deltas(1).items()}
    parent = Adapter(write_folder(tmp_path / "a", wide))
    with pytest.raises(DataError, match="infinite or NaN"):
        derive([parent], tmp_path / "child", 4, lambda _, module_deltas: module_deltas[0], dtype="float16")


def test_modules_are_asked_for_one_by_one(tmp_path: Path) -> None:
    """The file grows while modules come: none is kept."""
    module_deltas = deltas(1)
    sizes = []

    def modules() -> Iterator[tuple[str, LoraDelta]]:
        for name, delta in module_deltas.items():
            staged = next(tmp_path.glob(".making-adapter-*/adapter_model.safetensors"))
            sizes.append(staged.stat().st_size)
            yield name, delta

    origin = Adapter(write_folder(tmp_path / "a", module_deltas)).settings
    shapes = {name: delta.shape for name, delta in module_deltas.items()}
    write_adapter(tmp_path / "child", shapes, modules(), 4, origin)
    assert len(sizes) == 2
    config = json.loads((tmp_path / "child" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (4, 4, {})
    for name, delta in module_deltas.items():
        assert relative_error(Adapter(tmp_path / "child").delta(name).dense(), dense(delta)) < 1e-12
