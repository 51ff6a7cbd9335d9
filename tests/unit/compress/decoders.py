"""Random small decoders of all kinds that can be compressed, with biases, q/k norms, shared heads and odd widths."""

from pathlib import Path
from typing import Any

import torch

from agentlab.compress.calibration import CalibrationStatistics, calibrate

KINDS = ("llama", "qwen2", "qwen3")


def decoder(kind: str = "llama", **changes: Any) -> Any:
    """In evaluation mode; the same every time."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "hidden_size": 96,
        "intermediate_size": 200,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 300,
        "max_position_embeddings": 128,
        **changes,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).eval().requires_grad_(False)
        for name, value in model.named_parameters():
            if "norm" in name:
                value.copy_(torch.randn_like(value).exp())  # some inputs are larger than others
            elif "bias" in name:
                value.normal_(0, 0.2)
            elif "layers" in name:
                value.mul_(8)  # so that the layers matter
    return model


def windows(count: int = 8, length: int = 32) -> torch.Tensor:
    """Random tokens."""
    return torch.randint(300, (count, length), generator=torch.Generator().manual_seed(1))


def statistics(model: Any, folder: Path) -> CalibrationStatistics:
    """Of a pass over `windows`."""
    return calibrate(model, windows(), folder, "here", memory=None, check=nothing)


def nothing(*_: Any) -> None:
    """A `check` and a `tell`."""


def logits(model: Any) -> torch.Tensor:
    """On other tokens than those of `windows`."""
    tokens = torch.randint(300, (2, 24), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return model(tokens).logits
