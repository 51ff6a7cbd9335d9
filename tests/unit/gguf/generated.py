"""Makes models with random weights, of shapes that the embedded one lacks, and libraries that fail with them."""

import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

_QUANTISE = """
import ctypes, os, sys, llama_cpp as api
params = api.llama_model_quantize_default_params()
params.ftype = api.LLAMA_FTYPE_MOSTLY_Q4_K_M
sys.exit(api.llama_model_quantize(os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2]), ctypes.byref(params)))
"""
_VOCABULARY, _WIDTH, _HEAD = 512, 512, 128


def write_qwen2(path: Path) -> Path:
    """One layer of a Qwen2 with heads of 128, four for queries and two for keys, quantised as Q4_K_M (1 MB)."""
    raw, random = path.with_suffix(".f16"), np.random.default_rng(0)
    writer = gguf.GGUFWriter(raw, "qwen2")
    writer.add_block_count(1)
    writer.add_context_length(1024)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_WIDTH)
    writer.add_head_count(_WIDTH // _HEAD)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    letters = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 600)]]
    writer.add_token_list([*letters[: _VOCABULARY - 1], "<|end|>"])
    writer.add_token_types([1] * (_VOCABULARY - 1) + [3])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(_VOCABULARY - 1)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")

    def random_tensor(name: str, *shape: int, scale: float = 1.0) -> None:
        values = random.standard_normal(shape) * scale / np.sqrt(shape[-1])
        writer.add_tensor(name, values.astype(np.float16 if len(shape) > 1 else np.float32))

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(_WIDTH, np.float32))

    random_tensor("token_embd.weight", _VOCABULARY, _WIDTH, scale=3.0)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        ones(f"{name}.weight")
    for name, rows in {"attn_q": 4, "attn_k": 2, "attn_v": 2, "attn_output": 4}.items():
        random_tensor(f"blk.0.{name}.weight", rows * _HEAD, _WIDTH, scale=2.0)
        if name != "attn_output":
            random_tensor(f"blk.0.{name}.bias", rows * _HEAD, scale=3.0)
    for name in ("ffn_gate", "ffn_up", "ffn_down"):
        random_tensor(f"blk.0.{name}.weight", _WIDTH, _WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    # in a process of its own: the library keeps what it opened
    subprocess.run([sys.executable, "-c", _QUANTISE, raw, path], check=True, capture_output=True)
    raw.unlink()
    return path


_FAULTY = """
import ctypes, os, signal, sys
if any(word.startswith("agentlab.gguf.") for word in sys.orig_argv):
    import llama_cpp as api, numpy as np
    load, make, decode, logits = (
        api.llama_model_load_from_file, api.llama_init_from_model, api.llama_decode, api.llama_get_logits_ith
    )
    models, contexts, read = {}, {}, {}
    def _load(path, params):
        model = load(path, params); models[model] = bool(params.use_extra_bufts); return model
    def _make(model, params):
        context = make(model, params)
        size = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
        contexts[context] = models[model], params.flash_attn_type == 1, size
        return context
    def _decode(context, batch):
        repack, flash, _ = contexts[context]
        read[context] = batch.n_tokens
        later = FAULT == "dies later" and os.path.exists(FLAG)
        if FAULT == "always dies" or repack and (FAULT == "dies" or later):
            signal.raise_signal(signal.SIGILL)
        return decode(context, batch)
    def _logits(context, place):
        row = logits(context, place)
        repack, flash, size = contexts[context]
        if FAULT == "nonsense" and repack and flash and 1 < read[context] < 64:
            values = np.ctypeslib.as_array(row, shape=(size,))
            values[:] = values[::-1].copy()
        return row
    api.llama_model_load_from_file, api.llama_init_from_model = _load, _make
    api.llama_decode, api.llama_get_logits_ith = _decode, _logits
"""


def break_library(folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> Path:
    """From now on llama.cpp has a fault in every worker; returns the file that sets "dies later" off.

    dies: with repacked weights every decode ends the process by SIGILL, as a build for AMX by GCC 12 does;
    nonsense: repacked weights with flash attention turn the logits of prompts under 64 tokens round.
    """
    folder.mkdir()
    flag = folder / "now"
    (folder / "sitecustomize.py").write_text(f"FAULT, FLAG = {fault!r}, {str(flag)!r}\n{_FAULTY}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    return flag
