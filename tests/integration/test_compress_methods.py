"""Quantizers and pruners on real weights: the methods keep their order."""

from pathlib import Path
from typing import Any

import pytest
import torch

from agentlab.compress.calibration import calibrate
from agentlab.compress.grid import Grid
from agentlab.compress.layerwise import prune, quantize
from agentlab.compress.recipe import QUANTIZERS
from agentlab.train.base import load_base
from tests.bench.bases import rotated, windows

pytestmark = pytest.mark.model
HOW: dict[str, Any] = {"check": lambda: None}


def test_the_order_of_the_methods_on_real_weights(float32_checkpoint: Path, tmp_path: Path) -> None:
    """On the first layers of the rotated model, whose weights lie on no grid."""
    base = load_base(float32_checkpoint, "fp32", "sdpa")
    plain = base.model
    plain.model.layers, plain.config.num_hidden_layers = plain.model.layers[:3], 3
    held_out = windows(base.tokenizer, 2, 96, held_out=True)
    model = rotated(plain).requires_grad_(False)
    statistics = calibrate(
        model, windows(base.tokenizer, 12, 96, held_out=False), tmp_path, "smollm2", memory=None, **HOW
    )

    def logs() -> torch.Tensor:
        with torch.inference_mode():
            return model(held_out).logits.log_softmax(-1)

    before = logs()
    with torch.inference_mode():
        assert torch.allclose(plain(held_out).logits.log_softmax(-1), before, atol=1e-2)
    weights = {name: value.clone() for name, value in model.model.layers.state_dict().items()}
    kl: dict[str, float] = {}
    for method in ("rtn", "gptq", "magnitude", "wanda", "sparsegpt"):
        model.model.layers.load_state_dict(weights)
        if method in ("rtn", "gptq"):
            quantize(model, statistics, QUANTIZERS.load(method), Grid(3, 64), **HOW)
        else:
            prune(model, statistics, method, 0.5, **HOW)
        kl[method] = float((before.exp() * (before - logs())).sum(-1).mean())
    assert kl["gptq"] < 0.7 * kl["rtn"], kl
    assert kl["sparsegpt"] < kl["wanda"] < kl["magnitude"], kl
