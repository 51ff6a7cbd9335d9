"""A random two-layer Llama, and PEFT's adapters on it."""

import warnings
from pathlib import Path
from typing import Any

import torch

from agentlab.lora.reading import PREFIX

TARGETS = ["q_proj", "k_proj", "down_proj"]


def tiny_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


def trained(path: Path, keys: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A folder that PEFT wrote, and the change that PEFT applies for it, by module."""
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT has opinions on every folder
        model = get_peft_model(tiny_model(), LoraConfig(**{"target_modules": TARGETS, **keys}))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(path)
    return applied(model)


def applied(model: Any) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(PREFIX): module.get_delta_weight("default").detach()
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }


def loaded(path: Path) -> Any:
    """The tiny model with an adapter, as PEFT loads it; complaints about the weights are errors."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*(missing|unexpected).*keys.*")
        return PeftModel.from_pretrained(tiny_model(), str(path)).eval()
