"""A merged checkpoint is the base with the adapter's change, answers as both together, and is whole or not there."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from agentlab.errors import AgentlabError, DataError, MissingFileError, ModelFileError, StorageError, UsageError
from agentlab.hf.fingerprint import fingerprint_of
from agentlab.lora.card import CARD_FILE
from agentlab.lora.reading import WEIGHTS_FILE, Adapter
from agentlab.machine import Memory
from agentlab.train.merge import MergeResult, merge
from tests.unit.lora.deltas import random_delta
from tests.unit.lora.folders import deltas, write_folder
from tests.unit.train.merging import TARGETS, train, write_checkpoint


def nothing(*_: object) -> None:
    pass


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {key: value for file in sorted(folder.glob("*.safetensors")) for key, value in load_file(file).items()}


def merged(adapter: Path, base: Path, out: Path, dtype: Any = None, **keys: Any) -> MergeResult:
    with Adapter(adapter) as opened:
        return merge(opened, base, out, dtype, nothing, **keys)


def shown(result: MergeResult) -> str:
    return repr(result.blocks())


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    return train(tmp_path / "adapter", base)


@pytest.mark.parametrize(
    "keys", [{}, {"r": 9, "use_rslora": True, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"o_proj": 1}}]
)
def test_weights_are_the_bases_plus_the_change(tmp_path: Path, base: Path, keys: dict[str, Any]) -> None:
    train(tmp_path / "adapter", base, **keys)
    result = merged(tmp_path / "adapter", base, tmp_path / "out")
    before, after = weights(base), weights(tmp_path / "out")
    assert list(before) == list(after)
    with Adapter(tmp_path / "adapter") as opened:
        for key, tensor in before.items():
            module = key.removesuffix(".weight")
            change = opened.delta(module).dense() if module in opened.modules else 0
            assert torch.equal(after[key], (tensor.double() + change).to(tensor.dtype))
        assert result.modules == len(opened.modules) == 2 * len(TARGETS)


def test_it_answers_as_base_and_adapter_and_not_as_the_base(tmp_path: Path, base: Path, adapter: Path) -> None:
    result = merged(adapter, base, tmp_path / "out")
    assert result.to_adapted is not None
    assert result.to_base is not None
    assert result.to_adapted.largest < 1e-4 < 1e-2 < result.to_base.largest
    assert result.to_adapted.agreement == 1
    assert result.to_adapted.divergence < 1e-6 < result.to_base.divergence
    assert (result.dtype, result.computed_in, result.to_trained) == ("float32", "fp32", None)


def test_everything_beside_the_weights_comes_along(tmp_path: Path, base: Path, adapter: Path) -> None:
    result = merged(adapter, base, tmp_path / "out")
    for file in base.iterdir():
        if file.suffix != ".safetensors":
            assert json.loads((tmp_path / "out" / file.name).read_text()) if file.suffix == ".json" else True
            assert (tmp_path / "out" / file.name).read_text().split() == file.read_text().split()
    card = json.loads((tmp_path / "out" / CARD_FILE).read_text())
    assert card["base"]["fingerprint"] == result.fingerprint == fingerprint_of(base)
    assert card["merged"]["name"] == "adapter"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_shards_stay_shards(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", shard="60KB")
    train(tmp_path / "adapter", base)
    merged(tmp_path / "adapter", base, tmp_path / "out", "bfloat16")
    names = sorted(path.name for path in base.glob("*.safetensors"))
    assert len(names) > 2
    assert sorted(path.name for path in (tmp_path / "out").glob("*.safetensors")) == names
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(weights(base))
    assert index["metadata"]["total_size"] == sum(tensor.numel() * 2 for tensor in weights(base).values())


@pytest.mark.parametrize(("stored", "requested_dtype"), [(torch.bfloat16, None), (torch.float32, "bfloat16")])
def test_sixteen_bits(tmp_path: Path, stored: torch.dtype, requested_dtype: Any) -> None:
    base = write_checkpoint(tmp_path / "base", stored)
    train(tmp_path / "adapter", base)
    result = merged(tmp_path / "adapter", base, tmp_path / "out", requested_dtype)
    assert {tensor.dtype for tensor in weights(tmp_path / "out").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert result.dtype == "bfloat16"
    assert result.to_adapted is not None
    assert result.to_base is not None
    assert 0 < result.to_adapted.typical < result.to_base.typical / 5


def test_what_was_trained_on_four_bits_is_another_model(tmp_path: Path, base: Path, adapter: Path) -> None:
    card = {"base": {"fingerprint": fingerprint_of(base), "precision": "4bit"}}
    (adapter / CARD_FILE).write_text(json.dumps(card))
    result = merged(adapter, base, tmp_path / "out")
    assert result.same_base is True
    assert result.to_adapted is not None
    assert result.to_trained is not None
    assert result.to_trained.typical > 10 * result.to_adapted.typical
    assert "trained on the base in 4bit" in shown(result)
    assert "differs from the trained one" in shown(result)


def test_a_model_that_does_not_fit_is_merged_and_not_compared(
    tmp_path: Path, base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentlab.machine.memory", lambda: Memory(total=1 << 30, available=1000))
    result = merged(adapter, base, tmp_path / "out")
    assert (result.to_adapted, result.to_base, result.computed_in) == (None, None, None)
    assert "too little free memory" in shown(result)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_another_base_than_the_cards_is_refused_unless_asked_for(tmp_path: Path, base: Path, adapter: Path) -> None:
    (adapter / CARD_FILE).write_text(json.dumps({"base": {"fingerprint": "sha256:other"}}))
    with pytest.raises(UsageError, match="different base model"):
        merged(adapter, base, tmp_path / "out")
    result = merged(adapter, base, tmp_path / "out", any_base=True)
    assert result.same_base is False
    assert "different base model" in shown(result)


def _scrap_config(base: Path) -> None:
    (base / "config.json").write_text("[")


def _integers(base: Path) -> None:
    tensors = {name: tensor.to(torch.uint8) for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors")


def _quantised(base: Path) -> None:
    _integers(base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"bits": 4}}))


def _cut(base: Path) -> None:
    (base / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes()[:999])


def _elsewhere(base: Path) -> None:
    (base / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b.safetensors"}}')


def _infinite(base: Path) -> None:
    tensors = weights(base)
    tensors["model.norm.weight"][0] = float("inf")
    save_file(tensors, base / "model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (_scrap_config, ModelFileError, "config.json is damaged"),
        (_quantised, DataError, "quantised"),
        (_integers, DataError, "of type U8"),
        (_cut, ModelFileError, "damaged"),
        (_elsewhere, ModelFileError, "more than .safetensors files in its folder"),
        (_infinite, ModelFileError, "infinite"),
        (lambda base: (base / "model.safetensors").unlink(), MissingFileError, r"model\.safetensors"),
        (lambda base: (base / "config.json").unlink(), MissingFileError, "not a checkpoint folder"),
        (lambda base: (base / "tokenizer.json").unlink(), MissingFileError, "no tokenizer"),
    ],
)
def test_a_base_that_will_not_do_is_said_and_nothing_is_left(
    tmp_path: Path, base: Path, adapter: Path, spoil: Any, kind: type[AgentlabError], words: str
) -> None:
    spoil(base)
    with pytest.raises(kind, match=words):
        merged(adapter, base, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_an_adapter_of_another_model_does_not_fit(tmp_path: Path, base: Path) -> None:
    with pytest.raises(DataError, match=r"q_proj has shape \(64, 64\), but the adapter's is \(8, 6\)"):
        merged(write_folder(tmp_path / "small", deltas(1)), base, tmp_path / "out")
    deep = {name.replace(".1.", ".9."): delta for name, delta in deltas(1).items() if ".1." in name}
    with pytest.raises(DataError, match=r"layers\.9\.mlp\.down_proj, which the adapter changes, is missing"):
        merged(write_folder(tmp_path / "deep", deep), base, tmp_path / "out")


def test_a_tied_head_has_no_matrix_to_change(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", tie_word_embeddings=True)
    vocabulary = json.loads((base / "config.json").read_text())["vocab_size"]
    head = {"lm_head": random_delta((vocabulary, 64), 2, seed=1)}
    with pytest.raises(DataError, match="shares its matrix with the embeddings"):
        merged(write_folder(tmp_path / "head", head, target_modules=["lm_head"]), base, tmp_path / "out")


def test_a_full_disk_and_a_taken_name_leave_all_as_it_was(
    tmp_path: Path, base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="already exists"):
        merged(adapter, base, tmp_path / "mine")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1 << 20}))
    with pytest.raises(StorageError, match="MiB free"):
        merged(adapter, base, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base", "mine"]


def test_a_damaged_adapter_leaves_nothing(tmp_path: Path, base: Path, adapter: Path) -> None:
    tensors = load_file(adapter / WEIGHTS_FILE)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, adapter / WEIGHTS_FILE)
    with pytest.raises(ModelFileError, match="infinite or NaN"):
        merged(adapter, base, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_a_card_that_peft_cannot_read_leaves_nothing(tmp_path: Path, base: Path, adapter: Path) -> None:
    card = adapter / "adapter_config.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"eva_config": 1.5}))
    with pytest.raises(ModelFileError, match="cannot be run"):
        merged(adapter, base, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]
