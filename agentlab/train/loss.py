"""The loss of a batch, computed at the tokens that are learnt and nowhere else."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch  # noqa: TID253 - this module is only imported by code that trains
from torch import Tensor  # noqa: TID253 - as above

from agentlab.hf.prefill import logits_at
from agentlab.train.collate import Collator
from agentlab.train.masks import IGNORED, Example
from agentlab.train.schedule import sorted_batches


def learnt_losses(model: Any, head: torch.nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Negative log-likelihood (natural) of every learnt token of a collated batch, float32 (learnt tokens,)."""
    targets = batch["labels"][:, 1:]
    learnt = targets != IGNORED
    before = torch.nn.functional.pad(learnt, (0, 1))
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = logits_at(model, head, before, inputs)
    return torch.nn.functional.cross_entropy(logits.float(), targets[learnt], reduction="none")


def mean_loss(model: Any, examples: Sequence[Example], batch_size: int, filler: int) -> float:
    """Mean negative log-likelihood over the learnt tokens of all examples; `filler` is the token that fills rows up.

    The model is in training mode afterwards.
    """
    collate = Collator(filler, "padded")

    def losses(rows: Sequence[Sequence[Example]]) -> Tensor:
        on_device = {name: value.to(model.device) for name, value in collate(rows).items()}
        return learnt_losses(model, model.get_output_embeddings(), on_device)

    return mean_of(losses, model, examples, batch_size)


@torch.no_grad()
def mean_of(
    losses: Callable[[list[tuple[Example, ...]]], Tensor], model: Any, examples: Sequence[Example], batch_size: int
) -> float:
    """As `mean_loss`; `losses` are those of the learnt tokens of a batch, whose rows are one example each."""
    model.eval()
    total, count = 0.0, 0
    for batch in sorted_batches([len(example.input_ids) for example in examples], batch_size, 0, 0):
        batch_losses = losses([(examples[row[0]],) for row in batch])
        total += batch_losses.double().sum().item()
        count += len(batch_losses)
    model.train()
    return total / count
