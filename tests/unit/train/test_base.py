"""What is loaded as a base, in which precision, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from agentlab import machine
from agentlab.errors import MissingFileError, ModelFileError
from agentlab.train.base import fingerprint_of, load_base, load_tokenizer, resolve_precision

from .tiny_base import tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_base_is_loaded_silently_frozen_and_ready_to_answer(
    checkpoint: Path, precision: Any, dtype: torch.dtype, capfd: pytest.CaptureFixture[str]
) -> None:
    base = load_base(checkpoint, precision, "sdpa")
    assert base.model.dtype is dtype
    assert base.precision == precision
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert base.tokenizer.chat_template
    assert base.fingerprint == fingerprint_of(checkpoint)
    assert capfd.readouterr() == ("", "")


def test_auto_is_bfloat16_where_the_device_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_precision("4bit") == "4bit"
    assert resolve_precision("auto") == ("bf16" if machine.describe().bf16 else "fp32")


def _gradients(model: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    ids = torch.arange(5, 25).reshape(2, 10)
    model(input_ids=ids, labels=ids).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}


@pytest.mark.parametrize("precision", ["4bit", "8bit"])
def test_a_scoring_does_not_change_the_gradients_of_a_quantised_base(checkpoint: Path, precision: Any) -> None:
    """bitsandbytes would repack 4-bit weights in place, and pass no gradient on ever after."""
    from agentlab.train.adapter import attach_adapter
    from agentlab.train.config import LoraConfig

    base = load_base(checkpoint, precision, "sdpa")
    assert base.model.is_quantized
    with attach_adapter(base, LoraConfig(r=2), seed=0) as model:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
        model.train()
        before = _gradients(model)
        model.eval()
        with torch.no_grad():
            model(input_ids=torch.arange(5, 25).reshape(2, 10))
        model.train()
        after = _gradients(model)
    assert len(before) == 2 * 7 * 2  # A and B of seven modules in two layers
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(value.abs().sum() > 0 for value in before.values())


def test_a_fingerprint_is_that_of_config_weights_and_tokenizer(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny")
    first = fingerprint_of(folder)
    (folder / "README.md").write_text("# A note\n")
    assert fingerprint_of(folder) == first
    assert fingerprint_of(tiny_checkpoint(tmp_path / "copy")) == first  # its name and place are no part of it
    for name in ("model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b" ")
        assert fingerprint_of(folder) != first, name
        (folder / name).write_bytes(content)
    assert fingerprint_of(folder) == first
    with pytest.raises(MissingFileError):
        fingerprint_of(tmp_path / "none")


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="No such checkpoint folder"):
        load_base(tmp_path / "none", "fp32", "sdpa")
    file = tmp_path / "smollm.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(ModelFileError) as gguf:
        load_base(file, "fp32", "sdpa")
    assert "agentlab models import smollm" in (gguf.value.hint or "")
    with pytest.raises(MissingFileError) as folder:
        load_tokenizer(tmp_path)
    assert "agentlab models import smollm" in (folder.value.hint or "")


def _changed(tmp_path: Path, **keys: object) -> Path:
    folder = tiny_checkpoint(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **keys}))
    return folder


def test_an_unknown_architecture_is_refused_and_code_that_comes_with_it_is_not_run(tmp_path: Path) -> None:
    folder = _changed(tmp_path, model_type="mine", auto_map={"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"})
    ran = tmp_path / "ran"
    (folder / "mine.py").write_text(f"open({str(ran)!r}, 'w')\n")
    with pytest.raises(ModelFileError) as caught:
        load_base(folder, "fp32", "sdpa")
    assert "architecture" in (caught.value.hint or "")
    assert not ran.exists()


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(MissingFileError, match="safetensors"):
        load_base(folder, "fp32", "sdpa")


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in weights.items() if name != "lm_head.weight"}, folder / "model.safetensors"
    )
    with pytest.raises(ModelFileError, match=r"lacks lm_head\.weight"):
        load_base(folder, "fp32", "sdpa")


def test_damaged_files_are_an_error_of_one_sentence(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ModelFileError, match="cannot load"):
        load_base(folder, "fp32", "sdpa")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelFileError):
        load_base(folder, "fp32", "sdpa")


def test_a_base_that_cannot_fit_is_refused_before_it_is_loaded(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(total=1 << 30, available=1 << 10))
    monkeypatch.setattr(machine, "gpu_memory", lambda: 0)
    with pytest.raises(ModelFileError, match="GiB in fp32") as caught:
        load_base(checkpoint, "fp32", "sdpa")
    assert "4bit" in (caught.value.hint or "")


def test_flash_attention_without_its_package_says_what_to_install(checkpoint: Path) -> None:
    from agentlab.errors import MissingError

    with pytest.raises(MissingError) as caught:
        load_base(checkpoint, "bf16", "flash_attention_2")
    assert "training.attn_implementation=sdpa" in (caught.value.hint or "")
