"""Codes in words of 32 bits, and the folders they are written to."""

import errno
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from agentlab.compress import checkpoint_formats
from agentlab.compress.architecture import linears, put_weights
from agentlab.compress.checkpoint_formats import pack, write_dense, write_packed
from agentlab.compress.grid import Codes, Grid
from agentlab.compress.quantizers import rtn
from agentlab.errors import DataError, StorageError
from agentlab.train.base import load_base

from .decoders import decoder, logits, nothing
from .test_pruners_structure import tokenizer_folder


def unpacked(words: torch.Tensor, bits: int, inputs: int) -> list[list[int]]:
    """By the bits alone: the words of a row, the first lowest, are one number."""
    rows = [sum((word & 0xFFFFFFFF) << 32 * index for index, word in enumerate(row)) for row in words.tolist()]
    return [[(row >> bits * index) % (1 << bits) - (1 << bits - 1) for index in range(inputs)] for row in rows]


@given(st.sampled_from((2, 3, 4, 8)), st.integers(1, 70), st.integers(0, 99))
def test_packed_codes_come_back(bits: int, inputs: int, seed: int) -> None:
    low = -(1 << bits - 1)
    codes = torch.randint(low, -low, (3, inputs), generator=torch.Generator().manual_seed(seed)).to(torch.int8)
    words = pack(codes, bits)
    assert words.shape == (3, -(-inputs * bits // 32))
    assert unpacked(words, bits, inputs) == codes.tolist()


def quantized(grid: Grid) -> tuple[object, dict[str, Codes]]:
    model = decoder()
    codes = {name: rtn(module.weight, grid) for name, module in linears(model).items()}
    put_weights(model, codes)
    return model, codes


def test_a_packed_folder_names_its_grids(tmp_path: Path) -> None:
    model, codes = quantized(Grid(4, 64))
    write_packed(model, codes, tokenizer_folder(tmp_path / "words"), tmp_path / "out", "bfloat16", nothing)
    config = json.loads((tmp_path / "out/config.json").read_text())
    groups = config["quantization_config"]["config_groups"].values()
    assert [group["weights"]["group_size"] for group in groups] == [32, None]
    assert sorted(name for group in groups for name in group["targets"]) == sorted(codes)
    tensors = load_file(tmp_path / "out/model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    assert tensors[f"{name}.weight_shape"].tolist() == [96, 200]
    assert tensors[f"{name}.weight_scale"].dtype == torch.float16
    weight = torch.tensor(unpacked(tensors[f"{name}.weight_packed"], 4, 200)) * tensors[f"{name}.weight_scale"].float()
    assert torch.equal(weight, linears(model)[name].weight)
    assert tensors["model.norm.weight"].dtype == torch.bfloat16
    assert (tmp_path / "out/chat_template.jinja").is_file()


def test_a_dense_folder_has_a_clean_config(tmp_path: Path) -> None:
    model, _ = quantized(Grid(4, 32))
    model.config.quantization_config = {"quant_method": "gguf"}
    write_dense(model, tokenizer_folder(tmp_path / "words"), tmp_path / "out", "float32", nothing)
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())
    assert torch.equal(logits(load_base(tmp_path / "out", "fp32", "sdpa").model), logits(model))


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = quantized(Grid(4, 32))
    words, out = tokenizer_folder(tmp_path / "words"), tmp_path / "made" / "out"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_formats, "_raw", full)
        with pytest.raises(StorageError, match="full"):
            write_dense(model, words, out, "float32", nothing)
    model.model.norm.weight[0] = torch.nan
    with pytest.raises(DataError, match=r"model\.norm\.weight"):
        write_dense(model, words, out, "float32", nothing)
    assert not list((tmp_path / "made").iterdir())
