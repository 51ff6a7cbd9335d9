"""Narrower MLPs, fewer layers, fewer tokens: plain models of their architecture, written and loaded."""

from pathlib import Path

import pytest
import torch

from agentlab.compress.checkpoint_formats import write_dense
from agentlab.compress.pruners import drop_layers, narrow
from agentlab.errors import UsageError
from agentlab.train.base import load_base
from tests.unit.train.chats import CHATML, bytewise

from .decoders import KINDS, decoder, logits, nothing, statistics


def tokenizer_folder(folder: Path) -> Path:
    bytewise(CHATML).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_channels_that_do_nothing_go_first(kind: str, tmp_path: Path) -> None:
    changes = {"mlp_bias": True} if kind == "llama" else {}
    model = decoder(kind, **changes)
    for layer in model.model.layers:
        for value in layer.mlp.up_proj.parameters():
            value[50:90] = 0
    before = logits(model)
    narrow(model, statistics(model, tmp_path / "known"), 160)
    assert model.config.intermediate_size == 160
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)
    write_dense(model, tokenizer_folder(tmp_path / "words"), tmp_path / "out", "float32", nothing)
    assert torch.equal(logits(load_base(tmp_path / "out", "fp32", "sdpa").model), logits(model))
    with pytest.raises(UsageError, match="160 channels"):
        narrow(model, statistics(model, tmp_path / "again"), 160)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_that_do_nothing_go_first(kind: str, tmp_path: Path) -> None:
    model = decoder(kind)
    middle = model.model.layers[1]
    for module in (middle.self_attn.o_proj, middle.mlp.down_proj):
        module.weight.zero_()
    before = logits(model)
    assert drop_layers(model, statistics(model, tmp_path / "known").influences(), 1) == [1]
    assert torch.equal(logits(model), before)
    write_dense(model, tokenizer_folder(tmp_path / "words"), tmp_path / "out", "float32", nothing)
    reread = load_base(tmp_path / "out", "fp32", "sdpa").model
    assert torch.equal(logits(reread), before)
    assert reread.generate(torch.tensor([[1, 2]]), max_new_tokens=3, do_sample=False).shape[1] <= 5
    with pytest.raises(UsageError, match="Cannot remove 2"):
        drop_layers(model, [0.1, 0.2], 2)
