"""The config of an adapter: its scale as PEFT computes it, and a reason for every adapter that is refused."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import AgentlabError, DataError, MissingFileError
from agentlab.lora.settings import AdapterSettings, read_settings

NAMES = ["model.layers.1.self_attn.q_proj", "model.layers.11.self_attn.q_proj", "model.layers.1.mlp.up_proj"]


def settings(**keys: object) -> AdapterSettings:
    return AdapterSettings.model_validate({"r": 8, "lora_alpha": 16, **keys})


def config_folder(tmp_path: Path, **keys: object) -> Path:
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], **keys})
    )
    return tmp_path


def test_scale_is_alpha_by_rank_or_by_its_root() -> None:
    assert settings().scale(8, 16) == 2
    assert settings(use_rslora=True).scale(16, 8) == 2


PATTERNS = [
    {"q_proj": 4},
    {"layers.1.self_attn.q_proj": 4},
    {r"layers\.1\..*": 4},
    {"^model.layers.1.mlp.up_proj": 4},
    {"up_proj": 4, "mlp.up_proj": 2},
    {".*1.self_attn.q_proj": 4},
    {"self_attn": 4},
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_as_they_do_in_peft(pattern: dict[str, int]) -> None:
    from peft.utils.other import get_pattern_key

    expected = {name: pattern.get(get_pattern_key(pattern.keys(), name), 8) for name in NAMES}
    assert settings(rank_pattern=pattern).ranks(NAMES) == expected
    alphas = {key: float(value) for key, value in pattern.items()}
    assert settings(alpha_pattern=alphas, lora_alpha=8.0).alphas(NAMES) == expected


def test_a_pattern_that_would_run_for_ever_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlab.lora.settings._MATCH_SECONDS", 0.1)
    with pytest.raises(DataError, match="cannot be matched"):
        settings(alpha_pattern={"(a|a)+[bc]": 1.0}).alphas(["a" * 60])
    with pytest.raises(DataError, match="cannot be matched"):
        settings(alpha_pattern={"(": 1.0}).alphas(NAMES)
    with pytest.raises(DataError, match="too many"):
        settings(rank_pattern={f"p{n}": 1 for n in range(1000)}).ranks(f"m{n}" for n in range(10_000))
    with pytest.raises(DataError, match="nested groups"):
        settings(rank_pattern={"(?:" * 25 + "a" + "){2}" * 25: 1}).ranks(NAMES)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "LoRA biases"),
        ({"bias": "all"}, "trains biases"),
        ({"modules_to_save": ["lm_head"]}, "replaces whole modules"),
        ({"trainable_token_indices": [1]}, "token embeddings"),
        ({"target_parameters": ["x"]}, "bare parameters"),
        ({"alora_invocation_tokens": [1]}, "aLoRA"),
        ({"init_lora_weights": "pissa_niter_16"}, "modified base model"),
        ({"init_lora_weights": "olora"}, "modified base model"),
        ({"peft_type": "IA3"}, "not LORA"),
        ({"r": 0}, "r: "),
        ({"r": 10**9}, "r: "),
        ({"r": "8"}, "r: "),
        ({"lora_alpha": None}, "lora_alpha: "),
        ({"lora_alpha": math.nan}, "lora_alpha: "),
        ({"lora_alpha": 1e308}, "lora_alpha: "),
        ({"alpha_pattern": {"q": -1e7}}, "alpha_pattern.q: "),
        ({"rank_pattern": {"q": -1}}, "rank_pattern.q: "),
        ({"target_modules": [1]}, "target_modules"),
    ],
)
def test_what_is_no_plain_adapter_is_refused_with_the_reason(
    tmp_path: Path, keys: dict[str, object], reason: str
) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read_settings(config_folder(tmp_path, **keys))
    assert caught.value.hint


def test_start_values_that_leave_the_base_alone_are_fine(tmp_path: Path) -> None:
    assert read_settings(config_folder(tmp_path, init_lora_weights="gaussian", revision="main")).base == ("", "main")


def test_a_folder_without_config_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="is not an adapter folder"):
        read_settings(tmp_path)


HOSTILE = [b"[" * 100_000, b"[]", b'{"peft_type": "LORA", "r": 8, "lora_alpha": 1e999}', b" " * (5 << 20)]


@given(text=st.one_of(st.binary(max_size=200), st.sampled_from(HOSTILE)))
def test_any_file_is_read_or_refused_in_words(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    folder = tmp_path_factory.mktemp("config")
    (folder / "adapter_config.json").write_bytes(text)
    with pytest.raises(AgentlabError):
        read_settings(folder)
