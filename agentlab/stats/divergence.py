"""How far a model's next-token distributions are from those of another one. Pure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Divergence:
    """Of a model from its base over windows of text."""

    kl: float  # KL(base || model), nats a token, mean over all tokens
    windows: tuple[float, ...]  # the same for each window
    losses: tuple[float, ...]  # of each window, the logarithm of its perplexity by that of the base
    loss: float  # perplexity of the model by that of the base, less 1
    top1: float  # share of tokens of which both find the same likeliest

    @classmethod
    def of(cls, parts: "Iterable[Mapping[str, float]]") -> "Divergence":
        """From what `window` says of each; of true tokens alone, there is only the loss."""
        measurements = list(parts)
        tokens = sum(part["tokens"] for part in measurements)
        mean = {key: _add_up(measurements, key) / tokens for key in ("kl", "loss", "same")}
        windows = tuple(part["kl"] / part["tokens"] for part in measurements if "kl" in part)
        losses = tuple(part["loss"] / part["tokens"] for part in measurements)
        return cls(mean["kl"], windows, losses, float(np.expm1(mean["loss"])), mean["same"])


def _add_up(measurements: Iterable[Mapping[str, float]], key: str) -> float:
    """NaN if a window lacks the key."""
    return sum(part.get(key, math.nan) for part in measurements)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural logarithms of the probabilities along the last axis, in the type of the logits."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    total = np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)
    return np.asarray(shifted - np.log(total).astype(logits.dtype))


def window(base: np.ndarray, model: np.ndarray, tokens: np.ndarray, at: np.ndarray) -> dict[str, float]:
    """Sums over a window.

    `base`, `model`: log-probabilities, float32 (tokens - 1, vocabulary): of each token but the first. For the loss
    alone, those of the true tokens (tokens - 1,) are enough of the base. `at`: bool (tokens - 1,), those of which the
    base says something.

    Returns:
        `tokens` that were predicted, and the sums of `kl`, of the difference in negative log-likelihood (`loss`), and
        of the tokens of which both find the `same` likeliest.
    """
    base, model, tokens = base[at], model[at], tokens[1:][at]
    rows = np.arange(len(tokens))
    ours = model[rows, tokens]
    if base.ndim == 1:
        return {"tokens": float(len(rows)), "loss": float((base.astype(np.float64) - ours).sum())}
    kl = (np.exp(base) * (base - model)).sum(axis=-1, dtype=np.float64)
    loss = base[rows, tokens].astype(np.float64) - ours
    same = base.argmax(axis=-1) == model.argmax(axis=-1)
    return {"tokens": float(len(rows)), "kl": float(kl.sum()), "loss": float(loss.sum()), "same": float(same.sum())}
