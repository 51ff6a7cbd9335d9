"""A tiny checkpoint with a tokenizer, and adapters that PEFT made for it."""

import warnings
from pathlib import Path
from typing import Any

import torch

from tests.unit.train.chats import CHATML, bytewise

TARGETS = ["q_proj", "v_proj", "o_proj", "down_proj"]


def model_of(tokenizer: Any, **keys: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **keys,
    )
    return LlamaForCausalLM(config)


def write_checkpoint(
    path: Path, dtype: torch.dtype = torch.float32, *, template: str | None = CHATML, shard: str = "5GB", **keys: Any
) -> Path:
    """A folder as `save_pretrained` writes it."""
    tokenizer = bytewise(template)
    model_of(tokenizer, **keys).to(dtype).save_pretrained(path, max_shard_size=shard)
    tokenizer.save_pretrained(path)
    return path


def train(path: Path, base: Path, **keys: Any) -> Path:
    """An adapter folder for that checkpoint, its change some per cent of the weights."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT has opinions on every folder
        config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "CAUSAL_LM", **keys})
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        model.save_pretrained(str(path))
    return path
