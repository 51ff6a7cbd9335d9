"""Adapter folders as PEFT writes them, made by hand, so that they can also be wrong in one respect."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from agentlab.lora.delta import LoraDelta
from tests.unit.lora.deltas import random_delta

QUERY, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"


def deltas(seed: int, rank: int = 4) -> dict[str, LoraDelta]:
    """Two modules of different shapes."""
    return {QUERY: random_delta((8, 6), rank, seed), DOWN: random_delta((6, 12), rank, seed + 1000)}


def tensors_of(modules: Mapping[str, LoraDelta]) -> dict[str, torch.Tensor]:
    return {
        f"base_model.model.{name}.lora_{side}.weight": tensor.contiguous()
        for name, delta in modules.items()
        for side, tensor in (("A", delta.a), ("B", delta.b))
    }


def write_folder(
    path: Path, modules: Mapping[str, LoraDelta], tensors: Mapping[str, torch.Tensor] | None = None, **config: Any
) -> Path:
    """An adapter folder; `tensors` come on top of the modules', `config` on top of a plain one's keys."""
    path.mkdir(parents=True)
    plain = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "some/base",
        "revision": None,
        "r": max((delta.rank for delta in modules.values()), default=4),
        "lora_alpha": 8,
        "target_modules": ["q_proj", "down_proj"],
        "bias": "none",
        "init_lora_weights": True,
    }
    (path / "adapter_config.json").write_text(json.dumps({**plain, **config}))
    save_file({**tensors_of(modules), **(tensors or {})}, path / "adapter_model.safetensors")
    return path
