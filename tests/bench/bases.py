"""Base models for measurements of compression, made from the embedded one."""

from pathlib import Path
from typing import Any

import torch


@torch.no_grad()
def rotated(model: Any, seed: int = 0) -> Any:
    """The same function of a Llama with other weights: RMSNorm gains folded in, the residual stream rotated.

    SmolLM2 comes from a 4-bit file, and its weights lie on that grid; afterwards they lie on none.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**{**model.config.to_dict(), "tie_word_embeddings": False})
    with torch.random.fork_rng():
        rotated_model = LlamaForCausalLM(config).float().eval()
        torch.manual_seed(seed)
        turn = torch.linalg.qr(torch.randn(config.hidden_size, config.hidden_size, dtype=torch.float64))[0]
    state = {name: value.double() for name, value in model.state_dict().items()}
    state["lm_head.weight"] = state["lm_head.weight"] * state["model.norm.weight"]
    for index in range(config.num_hidden_layers):
        layer = f"model.layers.{index}."
        for norm, readers in (
            ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            for reader in readers:
                state[f"{layer}{reader}.weight"] = state[f"{layer}{reader}.weight"] * state[f"{layer}{norm}.weight"]
    for name, value in state.items():
        if "norm" in name:
            state[name] = torch.ones_like(value)
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            state[name] = turn.T @ value
        elif value.ndim == 2:
            state[name] = value @ turn
    rotated_model.load_state_dict(state)
    rotated_model.generation_config = model.generation_config
    return rotated_model


def windows(tokenizer: Any, count: int, length: int, *, held_out: bool) -> torch.Tensor:
    """Tokens of `pydoc_data.topics`, int64 (count, length); a topic's name decides on which side it lies."""
    import hashlib
    from pydoc_data.topics import topics

    sides = [
        text for name, text in sorted(topics.items()) if (hashlib.sha256(name.encode()).digest()[0] < 77) == held_out
    ]
    ids = tokenizer("\n\n".join(sides), add_special_tokens=False)["input_ids"]
    step = max(length, len(ids) // count)
    return torch.tensor([ids[at : at + length] for at in range(0, count * step, step)][:count])


def write(model: Any, tokenizer: Any, folder: Path) -> Path:
    """As a checkpoint folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def trained(folder: Path, *, seed: int, steps: int, vocabulary: int, **sizes: Any) -> Path:
    """A small Llama with a tokenizer of its own, trained on `pydoc_data.topics` from random weights."""
    from pydoc_data.topics import topics

    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    text = [topics[name] for name in sorted(topics)]
    words = ByteLevelBPETokenizer()
    words.train_from_iterator(text, vocabulary, special_tokens=["<|end|>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words._tokenizer, eos_token="<|end|>")
    ids = torch.tensor(tokenizer("\n\n".join(text))["input_ids"])
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, eos_token_id=0, **sizes)
        model = LlamaForCausalLM(config).float().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for step in range(steps):
        starts = torch.randint(len(ids) - 129, (16,), generator=generator)
        batch = torch.stack([ids[at : at + 128] for at in starts.tolist()])
        loss = model(batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % 50 == 49:
            print(f"step {step + 1} of {steps}: loss {loss.item():.2f}", flush=True)
    return write(model.eval(), tokenizer, folder)
