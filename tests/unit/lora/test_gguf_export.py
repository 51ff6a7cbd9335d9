"""llama.cpp, with a base model and an exported adapter, computes what transformers and PEFT compute."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentlab.errors import DataError, ModelFileError, StorageError, UnknownNameError, UsageError
from agentlab.gguf.header import read_header
from agentlab.gguf.writing import Complete
from agentlab.lora.delta import LoraDelta
from agentlab.lora.gguf_export import GgufBase, export_gguf
from agentlab.lora.reading import Adapter
from tests.unit.lora.deltas import random_delta
from tests.unit.lora.folders import QUERY, deltas, write_folder
from tests.unit.lora.tiny import loaded, tiny_model, trained

TINY = GgufBase("llama", blocks=2, hidden=32, heads=4, kv_heads=2, key=8, value=8)
SMALL = GgufBase("llama", blocks=2, hidden=6, heads=4, kv_heads=2, key=2, value=2)  # of the folders made by hand
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TOKENS = [3, 9, 27, 41, 5, 60]


def write_base(path: Path, model: Any) -> None:
    """The tiny model as a GGUF file, by the format's own rules for llama: rows of queries and keys in pairs."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(128)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{n}>" for n in range(config.vocab_size)])
    writer.add_token_scores([0.0] * config.vocab_size)
    writer.add_token_types([gguf.TokenType.NORMAL] * config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        rows = tensor.numpy()
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        if heads:
            order = np.arange(len(rows)).reshape(heads, 2, -1).transpose(0, 2, 1).ravel()
            rows = np.ascontiguousarray(rows[order])
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), rows)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama_logits(base: Path, adapter: Path | None) -> np.ndarray:
    import llama_cpp

    path = str(adapter) if adapter else None
    llama = llama_cpp.Llama(str(base), lora_path=path, n_ctx=64, logits_all=True, n_threads=1, verbose=False)
    llama.eval(TOKENS)
    logits = np.array(llama.scores[: len(TOKENS)])
    llama.close()
    return logits


def torch_logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model(torch.tensor([TOKENS])).logits[0])


@pytest.mark.parametrize(
    "keys",
    [
        {"r": 4, "lora_alpha": 8, "target_modules": LINEAR},
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": LINEAR,
            "rank_pattern": {"k_proj": 6},
            "alpha_pattern": {"v_proj": 1},
        },
        {"r": 9, "lora_alpha": 6, "target_modules": ["q_proj", "k_proj"], "use_rslora": True},
    ],
)
def test_llama_cpp_computes_what_peft_computes(tmp_path: Path, keys: dict[str, Any]) -> None:
    trained(tmp_path / "adapter", keys)
    write_base(tmp_path / "base.gguf", tiny_model())
    with Adapter(tmp_path / "adapter") as adapter:
        export_gguf(adapter, tmp_path / "adapter.gguf", TINY)
    bare, expected = torch_logits(tiny_model()), torch_logits(loaded(tmp_path / "adapter"))
    assert np.abs(llama_logits(tmp_path / "base.gguf", None) - bare).max() < 1e-3
    actual = llama_logits(tmp_path / "base.gguf", tmp_path / "adapter.gguf")
    assert np.abs(actual - expected).max() < 0.02 * np.abs(expected - bare).max()


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    with Adapter(write_folder(tmp_path / "a", deltas(1))) as adapter:
        export_gguf(adapter, tmp_path / "out" / "a.gguf", SMALL)
    header = read_header(tmp_path / "out" / "a.gguf")
    assert header.keys["general.type"] == "adapter"
    assert header.keys["adapter.type"] == "lora"
    assert header.keys["general.architecture"] == "llama"
    assert header.keys["adapter.lora.alpha"] == 4
    assert [tensor.name for tensor in header.tensors] == [
        f"blk.{name}.weight.lora_{side}" for name in ("0.attn_q", "1.ffn_down") for side in "ab"
    ]


def test_what_llama_cpp_could_not_use_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    good = Adapter(write_folder(tmp_path / "good", deltas(1)))
    head = {"lm_head": random_delta((64, 32), 4, seed=1)}
    with pytest.raises(UnknownNameError, match="mamba"):
        export_gguf(good, tmp_path / "a.gguf", replace(SMALL, architecture="mamba"))
    outside = Adapter(write_folder(tmp_path / "head", head, target_modules=["lm_head"]))
    with pytest.raises(DataError, match="lm_head cannot be part"):
        export_gguf(outside, tmp_path / "a.gguf", SMALL)
    with pytest.raises(DataError, match=r"layers\.1\.mlp\.down_proj cannot be part"):
        export_gguf(good, tmp_path / "a.gguf", replace(SMALL, blocks=1))
    with pytest.raises(DataError, match="cannot be split into pairs"):
        export_gguf(good, tmp_path / "a.gguf", replace(SMALL, heads=8, key=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "head"]
    (tmp_path / "a.gguf").write_text("mine")
    with pytest.raises(UsageError, match="already exists"):
        export_gguf(good, tmp_path / "a.gguf", SMALL)
    assert (tmp_path / "a.gguf").read_text() == "mine"


OTHERS = [
    (replace(SMALL, heads=2), "q_proj is 8 x 6, but 4 x 6 in the base model"),
    (replace(SMALL, key=4), "q_proj is 8 x 6, but 16 x 6"),
    (replace(SMALL, hidden=8), "q_proj is 8 x 6, but 8 x 8"),
]


@pytest.mark.parametrize(("base", "words"), OTHERS)
def test_an_adapter_of_other_shapes_than_the_base_is_refused(tmp_path: Path, base: GgufBase, words: str) -> None:
    adapter = Adapter(write_folder(tmp_path / "good", deltas(1)))
    with pytest.raises(DataError, match=words):
        export_gguf(adapter, tmp_path / "a.gguf", base)
    down = {"model.layers.0.mlp.down_proj": random_delta((8, 12), 4, seed=1)}
    with pytest.raises(DataError, match="8 x 12, but 6 x any"):
        export_gguf(Adapter(write_folder(tmp_path / "down", down)), tmp_path / "a.gguf", SMALL)
    assert not (tmp_path / "a.gguf").exists()


def test_the_shapes_of_all_known_layers_are_those_of_a_model() -> None:
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, TINY.blocks)
    for name, module in tiny_model().named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            shape = TINY.shape_of(str(names.get_name(name)))
            assert any(shape)
            assert all(due in (None, side) for side, due in zip(module.weight.shape, shape, strict=True))
    assert replace(TINY, value=4).shape_of("blk.0.attn_qkv") == (32 + 16 + 8, 32)  # phi3 keeps them in one


def test_numbers_that_do_not_fit_into_float32_are_refused(tmp_path: Path) -> None:
    one = random_delta((8, 6), 4, seed=1)
    huge = {QUERY: LoraDelta(one.a, one.b / one.b.abs().max() * 3e38)}
    adapter = Adapter(write_folder(tmp_path / "huge", huge, lora_alpha=8))
    with pytest.raises(ModelFileError, match=r"q_proj have values up to 3e\+38"):
        export_gguf(adapter, tmp_path / "a.gguf", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["huge"]


def test_a_link_to_nothing_is_in_the_way_too(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").symlink_to("nowhere")
    with pytest.raises(UsageError, match="already exists"):
        export_gguf(Adapter(write_folder(tmp_path / "good", deltas(1))), tmp_path / "a.gguf", SMALL)
    assert (tmp_path / "a.gguf").is_symlink()


def test_too_little_space_is_noticed_before_a_file_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = Adapter(write_folder(tmp_path / "good", deltas(1)))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1 << 19}))
    with pytest.raises(StorageError, match=r"has only 0\.5 MiB free, but a\.gguf needs 1\.0 MiB") as caught:
        export_gguf(adapter, tmp_path / "a.gguf", SMALL)
    assert "--out" in (caught.value.hint or "")
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing the file fails, too, since what is buffered does not fit."""
    adapter = Adapter(write_folder(tmp_path / "good", deltas(1)))
    monkeypatch.setattr("secrets.token_hex", lambda _: "x")
    (tmp_path / ".a.gguf.x.tmp").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"a\.gguf: the disk is full"):
        export_gguf(adapter, tmp_path / "a.gguf", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_numbers_that_do_not_fit_on_the_disk_are_an_error() -> None:
    """NumPy says nothing where few numbers were buffered and could not be written: the file would be cut off."""
    numbers = np.ones(8, np.float32)
    with Path("/dev/full").open("wb", buffering=0) as full:
        numbers.tofile(full)
        with pytest.raises(OSError, match="No space left"):
            numbers.view(Complete).tofile(full)
