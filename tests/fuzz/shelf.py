"""What cases are made of and takes time to make: run folders, a tiny checkpoint, an adapter, a GGUF, whole configs."""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = ("llm", "nas", "train-persona", "debate", "evolve", "compress", "pipeline", "llm-bench")
SCRIPT = {
    "providers": {"script": {"kind": "scripted", "mode": "replies", "replies": ["one", "two"]}},
    "models": {"said": {"provider": "script", "id": "scripted", "price": {"input": 0, "output": 0}}},
    "roles": {"primary": ["said"]},
}
PIPELINE = {
    "models": {"far": {"provider": "router", "model": "said"}},
    "llm": SCRIPT,
    "base_pipeline": {
        "stages": [
            {"id": "a", "model": "far", "prompt": "{{ input }}"},
            {
                "id": "b",
                "model": "far",
                "prompt": "About {{ stages.a.output }} {% for n in [1, 2] %}{{ n }}{% endfor %}",
            },
        ]
    },
}


def fill(shelf: Path) -> None:
    """Make everything. Called in a worker, which has imported what this needs."""
    shutil.copytree(REPOSITORY / "tests/integration/earlier_runs", shelf / "nas")
    os.environ["AGENTLAB_HOME"] = str(shelf)
    (shelf / "far.yaml").write_text(json.dumps(PIPELINE))
    _answer("pipeline", str(shelf / "far.yaml"), "--input", "x", "--run-name", "made")
    (shelf / "runs").rename(shelf / "pipeline")
    (shelf / "whole").mkdir()
    for kind in KINDS:
        preset = [str(shelf / "far.yaml")] if kind == "pipeline" else []
        tree = json.loads(_answer("configs", "show", kind, *preset, "--json"))["result"]["config"]
        (shelf / "whole" / f"{kind}.json").write_text(json.dumps(tree))
    _make_checkpoint(shelf / "checkpoint", shelf / "adapter")
    _make_gguf(shelf / "gguf" / "tiny.gguf")


def _answer(*words: str) -> str:
    from cli.main import main

    with contextlib.redirect_stdout(io.StringIO()) as answer:
        code = main(list(words))
    if code != 0:
        raise RuntimeError(f"{words} ended with {code}")
    return answer.getvalue()


def _make_checkpoint(folder: Path, adapter: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from tests.unit.train.tiny_base import tiny_checkpoint

    tiny_checkpoint(folder, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    settings = LoraConfig(r=2, target_modules=["q_proj"], base_model_name_or_path="base")
    get_peft_model(model, settings).save_pretrained(str(adapter))


def _make_gguf(path: Path) -> None:
    import gguf
    import numpy as np

    path.parent.mkdir()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*map(chr, range(33, 96)), "<|end|>"])
    writer.add_token_types([1] * 63 + [3])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(63)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    shapes = {"token_embd": (64, 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
    shapes |= {"blk.0.attn_q": (32, 32), "blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32)}
    shapes |= {f"blk.0.{name}": (32, 32) for name in ("attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
