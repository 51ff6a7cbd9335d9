"""How far two models are apart: their logits on a few fixed texts, side by side."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - reached lazily, when a merged model is compared

from agentlab.errors import ModelFileError
from agentlab.hf.clock import stopped_clock
from agentlab.train.base import Base, quietly

PROMPTS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Is 17 a prime number? Explain briefly.",
    "How do I make good decisions under uncertainty?",
)


@dataclass(frozen=True, slots=True)
class Apart:
    """Logits of two models at every token of the prompts.

    `largest` and `typical` (root mean square) are absolute differences of logits; `divergence` is the mean
    Kullback-Leibler divergence of the next token, in nats; `agreement` is how often the likeliest one is the same.
    """

    largest: float
    typical: float
    divergence: float
    agreement: float


def apart(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> Apart:
    """Compare two models by their logits, one tensor of shape (tokens, vocabulary) per prompt."""
    a, b = torch.cat(list(first)).double(), torch.cat(list(second)).double()
    p, q = a.log_softmax(-1), b.log_softmax(-1)
    return Apart(
        largest=float((a - b).abs().max()),
        typical=float((a - b).square().mean().sqrt()),
        divergence=max(0.0, float((p.exp() * (p - q)).sum(-1).mean())),
        agreement=float((a.argmax(-1) == b.argmax(-1)).double().mean()),
    )


def logits(base: Base, adapter: Path | None = None) -> list[torch.Tensor]:
    """Logits on the prompts, (tokens, vocabulary) each, on the CPU: of a base alone, or with an adapter beside it.

    Raises:
        ModelFileError: PEFT cannot load the adapter, or the model cannot answer.
    """
    try:
        with quietly(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT has opinions on every folder
            if adapter is None:
                return [_on_prompt(base.model, base.tokenizer, prompt) for prompt in PROMPTS]
            from peft import PeftModel

            wrapped: Any = PeftModel.from_pretrained(base.model, str(adapter))
            try:
                return [_on_prompt(wrapped.eval(), base.tokenizer, prompt) for prompt in PROMPTS]
            finally:
                wrapped.unload()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        what = f"{base.path}{f' with {adapter}' if adapter else ''}"
        raise ModelFileError(f"{what} does not answer: {str(error)[:300]}") from error


def _on_prompt(model: Any, tokenizer: Any, prompt: str) -> torch.Tensor:
    text, plain = prompt, tokenizer.chat_template is None
    if not plain:
        turns = [{"role": "user", "content": prompt}]
        with stopped_clock():
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=plain)["input_ids"].to(model.device)
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    return found.float().cpu()
