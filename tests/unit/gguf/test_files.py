"""Checkpoints as GGUF files: llama.cpp computes what transformers does, and makes them smaller."""

import json
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from agentlab.errors import ModelFileError, StorageError, UnknownNameError, UsageError, WorkerDiedError
from agentlab.gguf.files import answer_gguf, divergence_gguf, falls_back, quantize_gguf, speed_gguf
from agentlab.gguf.writing import rotation, write_gguf
from agentlab.train.base import load_tokenizer
from tests.unit.compress.decoders import KINDS, decoder
from tests.unit.train.chats import CHATML, bytewise, spaced

pytestmark = pytest.mark.usefixtures("forked_workers")
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"rope_theta": 5e5, "original_max_position_embeddings": 32}
ODD: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, head of its own": ("llama", {"tie_word_embeddings": False, "num_attention_heads": 4, "head_dim": 32}),
    "llama, heads wider than the stream": ("llama", {"head_dim": 64}),
    "llama, long positions": (
        "llama",
        {"rope_parameters": LLAMA3},
    ),
    "qwen2, biases": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3, norms of queries and keys": ("qwen3", {"head_dim": 32, "num_key_value_heads": 6}),
}


def checkpoint(folder: Path, kind: str, tokenizer: Any = None, **changes: Any) -> tuple[Path, Any]:
    tokenizer = tokenizer or bytewise(CHATML)
    model = decoder(kind, vocab_size=len(tokenizer), **changes)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, model


def reference(path: Path, model: Any, length: int = 24) -> Path:
    tokens = torch.randint(100, (3, length), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        logs = model(tokens).logits[:, :-1].log_softmax(-1)
    save_file(
        {"tokens": tokens, "logprobs": logs.contiguous(), "at": torch.ones(logs.shape[:2], dtype=torch.bool)}, path
    )
    return path


@pytest.mark.parametrize("name", ODD)
def test_llama_cpp_computes_what_transformers_does(tmp_path: Path, name: str) -> None:
    kind, changes = ODD[name]
    folder, model = checkpoint(tmp_path / "model", kind, **changes)
    write_gguf(folder, tmp_path / "model.gguf", "f32")
    divergence = divergence_gguf(tmp_path / "model.gguf", reference(tmp_path / "reference", model), 1)
    assert divergence.kl < 1e-3  # the attention cache is in 16 bits
    assert divergence.top1 > 0.95
    assert abs(divergence.loss) < 0.01


LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1e4}
SCALED: dict[str, dict[str, Any]] = {
    "linear": LINEAR,
    "yarn": YARN,
    "yarn, factor from the lengths": {**YARN, "factor": None},
    "yarn, attention of its own": {**YARN, "attention_factor": 1.5},
    "yarn, attention by two scales": {**YARN, "mscale": 6.0, "mscale_all_dim": 0.2},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCALED)
def test_llama_cpp_scales_rotations_as_transformers_does(tmp_path: Path, kind: str, name: str) -> None:
    """Without the scaling the KL is above 0.1 at these lengths, and with a wrong attention above 0.005."""
    folder, model = checkpoint(tmp_path / "model", kind, max_position_embeddings=256, rope_parameters=SCALED[name])
    write_gguf(folder, tmp_path / "model.gguf", "f32")
    divergence = divergence_gguf(tmp_path / "model.gguf", reference(tmp_path / "reference", model, 250), 1)
    assert divergence.kl < 1e-3
    assert divergence.top1 > 0.95


def test_a_config_in_the_old_words_is_scaled_alike(tmp_path: Path) -> None:
    folder, model = checkpoint(tmp_path / "model", "qwen2", max_position_embeddings=256, rope_parameters=YARN)
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    old = {"type": rope.pop("rope_type"), **{key: rope[key] for key in ("factor", "original_max_position_embeddings")}}
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": rope["rope_theta"], "rope_scaling": old}))
    write_gguf(folder, tmp_path / "model.gguf", "f32")
    assert divergence_gguf(tmp_path / "model.gguf", reference(tmp_path / "reference", model, 250), 1).kl < 1e-3


@pytest.mark.parametrize(
    ("rope", "named"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "dynamic"),
        ({**YARN, "beta_fast": 8}, "beta_fast"),
        ({**YARN, "truncate": False}, "truncate"),
        ({"partial_rotary_factor": 0.5}, "partial rotary"),
    ],
)
def test_rotations_that_a_gguf_file_has_no_name_for_are_refused(rope: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelFileError, match=named):
        rotation({"rope_parameters": rope})


@pytest.mark.parametrize("make", [bytewise, spaced])
def test_llama_cpp_splits_text_as_transformers_does(tmp_path: Path, make: Callable[[str], Any]) -> None:
    import llama_cpp

    folder, _ = checkpoint(tmp_path / "model", "llama", make(CHATML))
    write_gguf(folder, tmp_path / "model.gguf", "f16")
    reader: Any = llama_cpp.Llama(str(tmp_path / "model.gguf"), vocab_only=True, verbose=False)
    tokenizer = load_tokenizer(folder)
    for text in ("Tea, please.", "two  spaces\n\tand 123 tabs", "naïve café ☕ 茶", "don't", "<|im_start|>user\n"):
        theirs = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert reader.tokenize(text.encode(), add_bos=False, special=True) == theirs, text


def test_smaller_types_and_what_matters_to_them(tmp_path: Path) -> None:
    folder, model = checkpoint(
        tmp_path / "model", "llama", hidden_size=256, intermediate_size=512, num_attention_heads=8, head_dim=32
    )
    write_gguf(folder, tmp_path / "model.gguf", "f32")
    ref = reference(tmp_path / "reference", model)
    sizes, kls = {}, {}
    for kind in ("Q8_0", "Q4_K_M", "Q2_K"):
        quantize_gguf(tmp_path / "model.gguf", tmp_path / f"{kind}.gguf", kind)
        sizes[kind] = (tmp_path / f"{kind}.gguf").stat().st_size
        kls[kind] = divergence_gguf(tmp_path / f"{kind}.gguf", ref, 1).kl
    assert sizes["Q8_0"] > sizes["Q4_K_M"] > sizes["Q2_K"]
    assert kls["Q8_0"] < kls["Q4_K_M"] < kls["Q2_K"]
    widths = {"attn_q": 256, "ffn_up": 256, "ffn_down": 512}
    rows = {
        f"blk.{layer}.{name}.weight": np.geomspace(1e-4, 1, width, dtype=np.float32)
        for layer in range(3)
        for name, width in widths.items()
    }
    quantize_gguf(tmp_path / "model.gguf", tmp_path / "told.gguf", "Q2_K", importance=rows)
    assert (tmp_path / "told.gguf").read_bytes() != (tmp_path / "Q2_K.gguf").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    full_divergence = divergence_gguf(tmp_path / "Q2_K.gguf", ref, 1)
    content = load_file(ref)
    content["logprobs"] = content["logprobs"].gather(-1, content["tokens"][:, 1:, None])[..., 0].contiguous()
    save_file(content, tmp_path / "true")
    alone = divergence_gguf(tmp_path / "Q2_K.gguf", tmp_path / "true", 1)
    assert alone.losses == full_divergence.losses  # the true tokens are enough for the loss
    assert (len(full_divergence.losses), alone.windows, math.isnan(alone.kl)) == (3, (), True)
    assert math.expm1(sum(full_divergence.losses) / 3) == pytest.approx(full_divergence.loss)
    fast, full_precision = speed_gguf([tmp_path / "Q8_0.gguf", tmp_path / "model.gguf"], 1)
    assert min(fast.load, fast.prefill, fast.decode, full_precision.decode) > 0
    assert 5 <= len(fast.ratios) <= 30
    assert answer_gguf(tmp_path / "Q8_0.gguf", "a", 1) == answer_gguf(tmp_path / "Q8_0.gguf", "a", 1)


def test_the_cache_can_be_kept_in_smaller_types(tmp_path: Path) -> None:
    folder, model = checkpoint(tmp_path / "model", "llama", hidden_size=256, num_attention_heads=8, head_dim=32)
    write_gguf(folder, tmp_path / "model.gguf", "f32")
    ref = reference(tmp_path / "reference", model)
    kls = [divergence_gguf(tmp_path / "model.gguf", ref, 1, kv_type=kind).kl for kind in ("f16", "q8_0", "q4_0")]
    assert kls == sorted(kls)
    assert kls[2] > 10 * kls[0]
    (fast,) = speed_gguf([tmp_path / "model.gguf"], 1, kv_type="q8_0")
    assert fast.decode > 0
    odd, model = checkpoint(tmp_path / "odd", "llama", hidden_size=96, num_attention_heads=4, head_dim=24)
    write_gguf(odd, tmp_path / "odd.gguf", "f32")
    with pytest.raises(ModelFileError, match="context"):
        divergence_gguf(tmp_path / "odd.gguf", reference(tmp_path / "reference", model), 1, kv_type="q8_0")


def test_what_a_k_quant_cannot_hold_is_known_before() -> None:
    shapes = {"a": (576, 576), "b": (1536, 512), "norm": (576,)}
    assert falls_back(shapes, "Q4_K_M") == ["a"]
    assert falls_back(shapes, "Q8_0") == []


def test_what_llama_cpp_cannot_quantize_is_said_in_its_words(tmp_path: Path) -> None:
    folder, _ = checkpoint(tmp_path / "odd", "llama", intermediate_size=52)
    write_gguf(folder, tmp_path / "odd.gguf", "f32")
    with pytest.raises(ModelFileError, match="no tensor type fallback"):
        quantize_gguf(tmp_path / "odd.gguf", tmp_path / "out.gguf", "Q8_0")


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    folder, _ = checkpoint(tmp_path / "model", "llama")
    out = tmp_path / "model.gguf"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(UnknownNameError, match="gpt2"):
        write_gguf(folder, out, "f32")
    (folder / "config.json").write_text(json.dumps(config))
    tokens = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**tokens, "pre_tokenizer": {"type": "Whitespace"}}))
    with pytest.raises(ModelFileError, match="does not support"):
        write_gguf(folder, out, "f32")
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    weights = load_file(folder / "model.safetensors")
    incomplete = {name: weight for name, weight in weights.items() if name != "lm_head.weight"}
    save_file(incomplete, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"has no lm_head\.weight"):
        write_gguf(folder, out, "f32")
    old = {**weights, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    save_file(old, folder / "model.safetensors")
    write_gguf(folder, out, "f16")
    assert b"inv_freq" not in out.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        write_gguf(folder, out, "f16")
    with pytest.raises(UnknownNameError):
        quantize_gguf(out, tmp_path / "x.gguf", "Q9_Z")
    (tmp_path / "torn.gguf").write_bytes(out.read_bytes()[:5000])
    with pytest.raises((ModelFileError, WorkerDiedError), match="torn"):
        quantize_gguf(tmp_path / "torn.gguf", tmp_path / "x.gguf", "Q8_0")
    with pytest.raises((ModelFileError, WorkerDiedError), match="torn"):
        answer_gguf(tmp_path / "torn.gguf", "a", 1)
    assert {entry.name for entry in tmp_path.iterdir()} == {"model", "model.gguf", "torn.gguf"}


def test_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    folder, _ = checkpoint(tmp_path / "model", "llama")
    write_gguf(folder, tmp_path / "model.gguf", "f32")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        with pytest.raises(StorageError):
            write_gguf(folder, disk / "model.gguf", "f32")
        assert list(disk.iterdir()) == []
        with pytest.raises((StorageError, ModelFileError, WorkerDiedError)):
            quantize_gguf(tmp_path / "model.gguf", disk / "small.gguf", "Q8_0")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_request_to_stop_ends_the_work(tmp_path: Path) -> None:
    folder, _ = checkpoint(tmp_path / "model", "llama")
    write_gguf(folder, tmp_path / "model.gguf", "f32")

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_gguf(tmp_path / "model.gguf", tmp_path / "x.gguf", "Q8_0", check=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.gguf"]
