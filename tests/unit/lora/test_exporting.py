"""Copies for other programs, and what the base model says of itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from agentlab.errors import DataError, MissingFileError, UnknownNameError, UsageError
from agentlab.lora.card import CARD_FILE
from agentlab.lora.exporting import export_peft, gguf_base, plan_serving
from agentlab.lora.gguf_export import GgufBase
from agentlab.lora.reading import Adapter
from tests.unit.lora.deltas import dense, random_delta, relative_error
from tests.unit.lora.folders import DOWN, QUERY, write_folder
from tests.unit.lora.test_gguf_export import write_base
from tests.unit.lora.tiny import tiny_model

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def nothing(*_: object) -> None:
    pass


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("bfloat16", 1e-2), ("float16", 1e-3)])
def test_a_copy_has_one_rank_and_scale_and_the_same_change(tmp_path: Path, dtype: str, error: float) -> None:
    mixed = {QUERY: random_delta((8, 6), 2, seed=1), DOWN: random_delta((6, 12), 3, seed=2)}
    path = write_folder(tmp_path / "a", mixed, r=2, lora_alpha=2, rank_pattern={"down_proj": 3})
    (path / CARD_FILE).write_text('{"seed": 1}')
    with Adapter(path) as adapter:
        assert plan_serving({"a": adapter}).problems
        export_peft(adapter, tmp_path / "copy", dtype, nothing)
    with Adapter(tmp_path / "copy") as copy:
        assert plan_serving({"copy": copy}).problems == ()
        assert relative_error(copy.delta(QUERY).dense(), dense(mixed[QUERY])) < error
        assert relative_error(copy.delta(DOWN).dense(), dense(mixed[DOWN]) * 2 / 3) < error
    assert (tmp_path / "copy" / CARD_FILE).read_text() == '{"seed": 1}'


def test_an_unknown_type_leaves_nothing(tmp_path: Path) -> None:
    adapter = Adapter(write_folder(tmp_path / "a", {QUERY: random_delta((8, 6), 2, seed=1)}))
    with pytest.raises(UsageError, match="int8"):
        export_peft(adapter, tmp_path / "copy", "int8", nothing)
    assert not (tmp_path / "copy").exists()


def test_checkpoint_and_gguf_of_one_model_say_the_same(tmp_path: Path) -> None:
    model = tiny_model()
    model.config.save_pretrained(tmp_path / "checkpoint")
    write_base(tmp_path / "base.gguf", model)
    expected = GgufBase("llama", blocks=2, hidden=32, heads=4, kv_heads=2, key=8, value=8)
    assert gguf_base(tmp_path / "checkpoint") == gguf_base(tmp_path / "base.gguf") == expected


def test_without_groups_every_head_has_keys_of_its_own(tmp_path: Path) -> None:
    config = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert gguf_base(tmp_path).kv_heads == 4


@pytest.mark.parametrize(
    ("keys", "width"), [({"head_dim": None}, 8), ({"head_dim": 5}, 5), ({"model_type": "qwen3"}, 128)]
)
def test_the_width_of_a_head_is_said_or_that_of_transformers(tmp_path: Path, keys: dict[str, Any], width: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, **keys}))
    assert (gguf_base(tmp_path).key, gguf_base(tmp_path).value) == (width, width)


@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3"])
def test_and_transformers_computes_with_that_width(tmp_path: Path, kind: str) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model(kind, hidden_size=1024, num_attention_heads=16)
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, **config.to_dict(), "head_dim": None}))
    expected = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    assert gguf_base(tmp_path).key == expected


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (None, MissingFileError, "no config.json"),
        ("{", DataError, "Cannot read"),
        ("[]", DataError, "not a JSON object"),
        (json.dumps({**LLAMA, "model_type": "mamba"}), UnknownNameError, "mamba"),
        (json.dumps({**LLAMA, "model_type": ["llama"]}), UnknownNameError, "model type"),
        (json.dumps({**LLAMA, "num_hidden_layers": True}), DataError, "num_hidden_layers is True"),
        (json.dumps({**LLAMA, "num_attention_heads": 10**9}), DataError, "num_attention_heads"),
    ],
)
def test_a_strange_config_is_refused(tmp_path: Path, content: str | None, kind: Any, words: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(kind, match=words):
        gguf_base(tmp_path)
