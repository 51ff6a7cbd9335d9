"""What a stranger's checkpoint may say of itself: each bad value is one error that names file and field."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest

from agentlab.errors import AgentlabError, ModelFileError
from agentlab.hf.checkpoint import loading, read_config
from agentlab.hf.decoder import HfDecoder
from agentlab.train.base import outline
from tests.unit.train.tiny_base import tiny_checkpoint

HUGE = 10**9


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("gate") / "tiny")


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def change(folder: Path, name: str, **fields: Any) -> None:
    content = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
    (folder / name).write_text(json.dumps({**content, **fields}))


def nested(levels: int) -> Any:
    return {"deeper": nested(levels - 1)} if levels else 1


FIELDS: list[tuple[str, Any]] = [
    *(("hidden_size", value) for value in ("x", -1, None, 577, 0, True, 1.5, HUGE, [64])),
    *(("num_hidden_layers", value) for value in ("3", True, 0, None, HUGE, 3)),
    *(("num_attention_heads", value) for value in (7, 0, "4", None, HUGE)),
    *(("num_key_value_heads", value) for value in (3, 0, "2")),
    *(("head_dim", value) for value in (-16, "16", HUGE)),
    *(("intermediate_size", value) for value in (-1, 0, "128", HUGE)),
    *(("vocab_size", value) for value in (-1, "x", None, HUGE)),
    *(("max_position_embeddings", value) for value in (-1, "x", 10**12, None)),
    *(("rope_parameters", value) for value in (5, "x", [1])),
    *(("rms_norm_eps", value) for value in (math.inf, math.nan, "x", 7, [0.1], {})),
    *(("eos_token_id", value) for value in ("x", [1, "x"], HUGE)),
    *(("model_type", value) for value in (5, {"a": 1})),
    *(("unknown", value) for value in (math.inf, 10**18, nested(20), nested(500))),
    *(("rope_parameters", {"rope_type": "yarn", "factor": value}) for value in ("x", [2.0], -1, 1e9)),
    ("attention_dropout", 7),
    ("tie_word_embeddings", "yes"),
    ("quantization_config", 5),
    ("text_config", {"hidden_size": -1}),
    ("max_unknown_layers", 10**6),
]


@pytest.mark.parametrize(("field", "value"), FIELDS, ids=lambda value: str(value)[:24])
def test_a_field_that_no_model_has_is_named_before_transformers_sees_it(copy: Path, field: str, value: Any) -> None:
    change(copy, "config.json", **{field: value})
    for read in (read_config, outline, lambda folder: HfDecoder(str(folder), "auto", 1)):
        with pytest.raises(ModelFileError) as caught:
            read(copy)
        assert "config.json" in caught.value.message
        assert field in caught.value.message
        assert len(caught.value.message) < 600
        assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", ""),
        ("config.json", "[]"),
        ("config.json", "[" * 3_000_000),
        ("config.json", '{"hidden_size": ' + "9" * 100_000 + "}"),
        ("config.json", '{"rms_norm_eps": 1e999}'),
        ("config.json", '{"x": [' + "0," * 1_500_000 + "0]}"),
        ("generation_config.json", '{"temperature": 1e999}'),
        ("generation_config.json", "5"),
        ("tokenizer_config.json", '{"chat_template": 5}'),
        ("tokenizer_config.json", '{"chat_template": [5]}'),
        ("tokenizer_config.json", '{"model_max_length": "512"}'),
        ("tokenizer_config.json", '{"add_bos_token": 5}'),
        ("tokenizer_config.json", '{"padding_side": "top"}'),
        ("special_tokens_map.json", "[]"),
        ("chat_template.jinja", "x" * (2 << 20)),
        ("adapter_config.json", '{"base_model_name_or_path": "/etc"}'),
        ("model.safetensors", "no header"),
    ],
    ids=lambda value: value[:30],
)
def test_a_file_that_is_none_is_named(copy: Path, name: str, content: str) -> None:
    (copy / name).write_text(content)
    with pytest.raises(ModelFileError, match=name):
        read_config(copy)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("config.json", {"rope_parameters": {"rope_type": "nonsense"}}),
        ("config.json", {"hidden_act": "nothing"}),
        ("config.json", {"pad_token_id": 1_000_000}),
        ("config.json", {"model_type": "bert"}),
        ("config.json", {"layer_types": ["x"]}),
        ("config.json", {"num_hidden_layers": 2, "model_type": "gpt2"}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": 5}}}),
        ("tokenizer_config.json", {"tokenizer_class": "Thief", "extra_special_tokens": 5}),
    ],
    ids=str,
)
def test_what_only_transformers_can_refuse_is_the_same_error(copy: Path, name: str, fields: dict[str, Any]) -> None:
    change(copy, name, **fields)
    began = time.process_time()
    with pytest.raises(ModelFileError, match=r"transformers cannot load"):
        HfDecoder(str(copy), "auto", 1)
    assert time.process_time() - began < 30


def test_what_good_checkpoints_say_passes(copy: Path) -> None:
    change(
        copy,
        "config.json",
        head_dim=None,
        sliding_window=None,
        pad_token_id=-1,
        eos_token_id=[1, 2],
        intermediate_size=[128, 128],
        rope_scaling=None,
        layer_types=["full_attention"] * 2,
        time_step_limit=[0.0, math.inf],  # Mamba 2
        auto_map={"AutoConfig": "modeling.Config"},  # never run
        max_window_layers=2,
        attention_multiplier=0.0078125,
    )
    change(copy, "tokenizer_config.json", model_max_length=10**30, chat_template=[{"name": "a", "template": "b"}])
    assert read_config(copy)["hidden_size"] == 64


def test_weights_that_are_not_quantised_are_not_said_to_be(copy: Path) -> None:
    change(copy, "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(ModelFileError, match="quantization_config"):
        read_config(copy)


def test_a_pipe_is_not_waited_for(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    os.mkfifo(copy / "model.safetensors")
    with pytest.raises(ModelFileError, match="is not a file"):
        read_config(copy)


def test_layers_without_weights_are_not_made_up(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFileError, match=r"its files lack model\.layers\.0\.mlp\.up_proj\.weight"):
        HfDecoder(str(copy), "auto", 1)


def test_a_panic_of_a_library_is_an_error_and_a_signal_is_not() -> None:
    class PanicException(BaseException):
        """As pyo3 raises it."""

    with pytest.raises(ModelFileError, match=r"it: PanicException: inside"), loading("it"):
        raise PanicException("inside")
    with pytest.raises(KeyboardInterrupt), loading("it"):
        raise KeyboardInterrupt
    with pytest.raises(AgentlabError, match="ours"), loading("it"):
        raise AgentlabError("ours")
