"""A random two-layer Llama as a checkpoint folder, and conversations of tokens that it can learn."""

import random
from pathlib import Path

import torch

from agentlab.train.base import quietly
from agentlab.train.dataset import TrainingSplit
from agentlab.train.masks import IGNORED, Example

from .chats import CHATML, bytewise


def tiny_checkpoint(folder: Path, **changes: int) -> Path:
    """Made anew; the same every time."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = bytewise(CHATML)
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        **changes,
    }
    with torch.random.fork_rng(), quietly():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def tiny_split(train: int = 10, held_out: int = 3) -> TrainingSplit:
    """Sequences that count upwards; their first three tokens are not learnt."""
    rng = random.Random(0)

    def one(line: int) -> Example:
        start, size = rng.randrange(10, 40), rng.randrange(6, 20)
        ids = tuple(range(start, start + size))
        return Example(line, ids, (IGNORED,) * 3 + ids[3:], 0)

    examples = [one(line) for line in range(train + held_out)]
    return TrainingSplit(tuple(examples[:train]), tuple(examples[train:]))
