"""Random deltas, and what they are as dense matrices: computed by NumPy in float64, apart from the code under test."""

import numpy as np
import torch
from hypothesis import strategies as st

from agentlab.lora.delta import LoraDelta

TOLERANCE = 1e-5  # relative Frobenius error that every operator has to hold


def random_delta(shape: tuple[int, int], rank: int, seed: int, scale: float = 1.0, decay: float = 1.0) -> LoraDelta:
    """Stored as adapters are, in float32; `decay` below 1 makes each direction weaker than the one before."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, shape[1], generator=generator)
    b = torch.randn(shape[0], rank, generator=generator) * decay ** torch.arange(rank)
    return LoraDelta(a, b, scale)


def dense(delta: LoraDelta) -> np.ndarray:
    return delta.scale * (delta.b.numpy().astype(np.float64) @ delta.a.numpy().astype(np.float64))


def off(actual: np.ndarray | torch.Tensor, expected: np.ndarray | torch.Tensor) -> float:
    """Frobenius norm of the difference."""
    return float(np.linalg.norm(np.asarray(actual) - np.asarray(expected)))


def relative_error(actual: np.ndarray | torch.Tensor, expected: np.ndarray) -> float:
    """`off` as a share of what was expected."""
    size = float(np.linalg.norm(expected))
    return off(actual, expected) / size if size else off(actual, expected)


@st.composite
def families(draw: st.DrawFn, least: int = 1, most: int = 4) -> list[LoraDelta]:
    """Deltas of one shape, of different ranks (also beyond the shape's), scales and spectra."""
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    count = draw(st.integers(least, most))
    return [
        random_delta(
            shape,
            draw(st.integers(1, 16)),
            draw(st.integers(0, 2**32)),
            draw(st.sampled_from([1e-3, 0.5, 1.0, 2.0, 100.0])),
            draw(st.sampled_from([1.0, 0.7, 0.1])),
        )
        for _ in range(count)
    ]


def weights_for(deltas: list[LoraDelta]) -> st.SearchStrategy[list[float]]:
    weights = st.floats(-2, 2).map(lambda weight: round(weight, 3))
    return st.lists(weights, min_size=len(deltas), max_size=len(deltas))
