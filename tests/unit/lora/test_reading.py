"""Adapter folders are read module by module, and what is wrong with one is said before any work."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from agentlab.errors import AgentlabError, DataError, MissingFileError, ModelFileError, UsageError
from agentlab.lora.delta import LoraDelta
from agentlab.lora.reading import Adapter, each_module, total_rank, union
from tests.unit.lora.deltas import dense, random_delta, relative_error
from tests.unit.lora.folders import DOWN, QUERY, deltas, write_folder


def test_an_adapter_tells_its_modules_and_reads_their_deltas(tmp_path: Path) -> None:
    modules = deltas(1)
    with Adapter(write_folder(tmp_path / "a", modules)) as adapter:
        assert list(adapter.modules) == [QUERY, DOWN]
        assert adapter.modules[QUERY].shape == (8, 6)
        assert adapter.modules[QUERY].rank == 4
        delta = adapter.delta(QUERY)
    assert relative_error(delta.dense(), 2 * dense(modules[QUERY])) < 1e-12  # alpha 8, rank 4


def test_layers_come_in_their_order(tmp_path: Path) -> None:
    modules = {f"model.layers.{n}.q_proj": random_delta((4, 4), 2, seed=n) for n in (10, 2, 1)}
    with Adapter(write_folder(tmp_path / "a", modules)) as adapter:
        assert [name.split(".")[2] for name in adapter.modules] == ["1", "2", "10"]


def test_scales_follow_patterns_and_rank_stabilisation(tmp_path: Path) -> None:
    modules = {QUERY: random_delta((8, 6), 4, seed=1), DOWN: random_delta((6, 12), 9, seed=2)}
    config = {"r": 4, "rank_pattern": {"down_proj": 9}, "alpha_pattern": {"down_proj": 27}}
    with Adapter(write_folder(tmp_path / "a", modules, **config)) as adapter:
        assert [module.scale for module in adapter.modules.values()] == [2, 3]
    with Adapter(write_folder(tmp_path / "b", modules, **config, use_rslora=True)) as adapter:
        assert [module.scale for module in adapter.modules.values()] == [4, 9]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_all_float_types_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    modules = {name: LoraDelta(delta.a.to(dtype), delta.b.to(dtype)) for name, delta in deltas(1).items()}
    with Adapter(write_folder(tmp_path / "a", modules)) as adapter:
        assert torch.equal(adapter.delta(QUERY).dense(), modules[QUERY].dense() * 2)


def broken(name: str) -> dict[str, object]:
    matrix = torch.zeros(4, 6)
    prefix = f"base_model.model.{QUERY}"
    return {
        "embedding": {"tensors": {"base_model.model.model.embed_tokens.lora_embedding_A": matrix}},
        "whole weight": {"tensors": {"base_model.model.lm_head.weight": matrix}},
        "no prefix": {"tensors": {f"{QUERY}.lora_A.weight": matrix}},
        "path in a name": {"tensors": {"base_model.model.../x.lora_A.weight": matrix}},
        "magnitudes": {"tensors": {f"{prefix}.lora_magnitude_vector": torch.zeros(6)}},
        "convolution": {"tensors": {f"{prefix}.lora_A.weight": torch.zeros(4, 6, 3, 3)}},
        "integers": {"tensors": {f"{prefix}.lora_A.weight": torch.zeros(4, 6, dtype=torch.int64)}},
        "one factor": {"tensors": {"base_model.model.x.q_proj.lora_A.weight": matrix}},
        "ranks differ": {"tensors": {f"{prefix}.lora_A.weight": torch.zeros(5, 6)}},
        "rank of the config": {"r": 5},
        "not a target": {"target_modules": ["q_proj"]},
        "rank 0": {"tensors": {f"{prefix}.lora_A.weight": torch.zeros(0, 6)}},
    }[name]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("embedding", "trains embeddings"),
        ("whole weight", r"lm_head\.weight"),
        ("no prefix", "contains the tensor"),
        ("path in a name", "contains the tensor"),
        ("magnitudes", "lora_magnitude_vector"),
        ("convolution", "not a float matrix"),
        ("integers", "not a float matrix"),
        ("one factor", "only one factor"),
        ("ranks differ", "rank 5 and 4"),
        ("rank of the config", "its config says 5"),
        ("not a target", "not in its target_modules"),
        ("rank 0", "invalid shape for an adapter"),
    ],
)
def test_folders_that_are_no_plain_adapter_are_refused_with_the_reason(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Adapter(write_folder(tmp_path / "a", deltas(1), **broken(name)))  # type: ignore[arg-type]


def test_an_adapter_without_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tensors"):
        Adapter(write_folder(tmp_path / "a", {}))


def test_a_pickle_is_not_touched(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", deltas(1))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(MissingFileError, match=r"only a pickled adapter_model\.bin") as caught:
        Adapter(folder)
    assert "safetensors" in (caught.value.hint or "")


def test_numbers_that_are_none_are_found_when_they_are_read(tmp_path: Path) -> None:
    modules = deltas(1)
    modules[QUERY].b[0, 0] = torch.nan
    with Adapter(write_folder(tmp_path / "a", modules)) as adapter:
        assert adapter.delta(DOWN).rank == 4
        with pytest.raises(ModelFileError, match="infinite or NaN"):
            adapter.delta(QUERY)


def test_numbers_that_only_float64_holds_are_none_of_an_adapter(tmp_path: Path) -> None:
    """Multiplied with each other they overflow."""
    one = random_delta((8, 6), 4, seed=1)
    adapter = Adapter(write_folder(tmp_path / "a", {QUERY: LoraDelta(one.a.double(), one.b.double() * 1e200)}))
    with pytest.raises(ModelFileError, match="infinite or NaN"):
        adapter.delta(QUERY)


def complaint_about(folder: Path) -> str | None:
    try:
        with Adapter(folder) as adapter:
            for name in adapter.modules:
                adapter.delta(name)
    except AgentlabError as error:
        return error.message
    return None


@pytest.mark.parametrize("seed", range(40))
def test_damaged_weights_are_read_or_refused_in_words(tmp_path: Path, seed: int) -> None:
    folder = write_folder(tmp_path / "a", deltas(1))
    file = folder / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    chance = np.random.default_rng(seed)
    if seed % 2:
        data = data[: chance.integers(len(data))]
    else:
        for offset in chance.integers(0, 400, size=5):
            data[offset] = chance.integers(256)
    file.write_bytes(data)
    complaint = complaint_about(folder)
    assert complaint is None or str(folder) in complaint


def test_a_header_that_claims_more_than_there_is_costs_no_memory(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", deltas(1))
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(ModelFileError, match="damaged"):
        Adapter(folder)


def test_a_file_larger_than_any_adapter_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", deltas(1))
    os.truncate(folder / "adapter_model.safetensors", 65 << 30)  # sparse: it takes no room
    with pytest.raises(DataError, match="64 GiB"):
        Adapter(folder)


def test_parents_of_different_rank_alpha_and_targets_fit_together(tmp_path: Path) -> None:
    first = Adapter(write_folder(tmp_path / "a", {QUERY: random_delta((8, 6), 2, seed=1)}))
    second = Adapter(write_folder(tmp_path / "b", deltas(2, rank=5), lora_alpha=10))
    shapes = union((first, second))
    assert shapes == {QUERY: (8, 6), DOWN: (6, 12)}
    ranks = {name: [delta.rank for delta in deltas] for name, deltas in each_module((first, second))}
    assert ranks == {QUERY: [2, 5], DOWN: [0, 5]}
    assert total_rank((first, second)) == 7


def test_parents_of_different_base_models_are_refused_unless_told(tmp_path: Path) -> None:
    first = Adapter(write_folder(tmp_path / "a", deltas(1)))
    same = Adapter(write_folder(tmp_path / "b", deltas(2), base_model_name_or_path="some/base/"))
    foreign = Adapter(write_folder(tmp_path / "c", deltas(2), base_model_name_or_path="other/base"))
    later = Adapter(write_folder(tmp_path / "d", deltas(2), revision="v2"))
    assert len(union((first, same))) == 2
    for stranger in (foreign, later):
        with pytest.raises(UsageError, match=r"belongs to some/base, .* to (other/base|some/base at v2)") as caught:
            union((first, stranger))
        assert caught.value.hint
        assert len(union((first, stranger), any_base=True)) == 2


def test_parents_whose_matrices_differ_are_always_refused(tmp_path: Path) -> None:
    first = Adapter(write_folder(tmp_path / "a", deltas(1)))
    wide = Adapter(write_folder(tmp_path / "b", {QUERY: random_delta((8, 7), 4, seed=1)}))
    turned = Adapter(write_folder(tmp_path / "c", deltas(1), fan_in_fan_out=True))
    with pytest.raises(DataError, match=r"\(8, 7\)"):
        union((first, wide), any_base=True)
    with pytest.raises(DataError, match="fan_in_fan_out"):
        union((first, turned), any_base=True)
    with pytest.raises(UsageError, match="no adapter"):
        union(())
