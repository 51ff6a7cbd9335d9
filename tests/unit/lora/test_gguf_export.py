"""llama.cpp, with a base model and an exported adapter, computes what transformers and PEFT compute."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentlab.errors import DataError, UnknownNameError, UsageError
from agentlab.gguf.header import read_header
from agentlab.lora.gguf_export import GgufBase, export_gguf
from agentlab.lora.reading import Adapter
from tests.unit.lora.deltas import random_delta
from tests.unit.lora.folders import deltas, write_folder
from tests.unit.lora.tiny import loaded, tiny_model, trained

TINY = GgufBase("llama", blocks=2, heads=4, kv_heads=2)
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
    found = np.array(llama.scores[: len(TOKENS)])
    llama.close()
    return found


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
    found = llama_logits(tmp_path / "base.gguf", tmp_path / "adapter.gguf")
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected - bare).max()


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    with Adapter(write_folder(tmp_path / "a", deltas(1))) as adapter:
        export_gguf(adapter, tmp_path / "out" / "a.gguf", TINY)
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
        export_gguf(good, tmp_path / "a.gguf", GgufBase("mamba", 2, 4, 2))
    outside = Adapter(write_folder(tmp_path / "head", head, target_modules=["lm_head"]))
    with pytest.raises(DataError, match="lm_head cannot be part"):
        export_gguf(outside, tmp_path / "a.gguf", TINY)
    with pytest.raises(DataError, match=r"layers\.1\.mlp\.down_proj cannot be part"):
        export_gguf(good, tmp_path / "a.gguf", GgufBase("llama", 1, 4, 2))
    with pytest.raises(DataError, match="do not divide"):
        export_gguf(good, tmp_path / "a.gguf", GgufBase("llama", 2, 3, 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "head"]
    (tmp_path / "a.gguf").write_text("mine")
    with pytest.raises(UsageError, match="there already"):
        export_gguf(good, tmp_path / "a.gguf", TINY)
    assert (tmp_path / "a.gguf").read_text() == "mine"
