"""What each operator has to make of a module, worked out on dense matrices by NumPy in float64.

Random ones draw from a generator of the same seed, in the order that their documentation gives.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from agentlab.lora.blend import concatenate, cross_directions, slerp, weighted_sum
from agentlab.lora.delta import LoraDelta
from agentlab.lora.mutation import mutate_values, new_directions, rotate
from agentlab.lora.sparse import dare, ties
from tests.unit.lora.deltas import dense
from tests.unit.lora.test_recipe import best
from tests.unit.lora.test_sparse import dense_ties

PULL, DENSITY, STEP = (0.6, -0.3), 0.5, 0.05
RANK = 6  # of children whose operator takes one


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@dataclass(frozen=True)
class Case:
    """An operator on the deltas of a module, and the matrix that has to come out."""

    made: Callable[[Sequence[LoraDelta]], LoraDelta]
    expected: Callable[[Sequence[LoraDelta]], np.ndarray]


def straight(parents: Sequence[LoraDelta]) -> np.ndarray:
    return sum((weight * dense(delta) for weight, delta in zip(PULL, parents, strict=True)), np.zeros(parents[0].shape))


def on_the_arc(parents: Sequence[LoraDelta], fraction: float) -> np.ndarray:
    first, second = map(dense, parents)
    near, far = 1 - fraction, fraction
    if first.any() and second.any():
        angle = np.arccos((first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second))
        near, far = np.sin(near * angle) / np.sin(angle), np.sin(far * angle) / np.sin(angle)
    return near * first + far * second


def crossed(parents: Sequence[LoraDelta]) -> np.ndarray:
    spectra = [np.linalg.svd(dense(delta)) for delta in parents]
    counts = [min(delta.rank, *delta.shape) for delta in parents]
    picks = torch.rand(max(counts), generator=seeded(), dtype=torch.float64) < 0.5
    child = np.zeros(parents[0].shape)
    for slot, parent in enumerate(map(int, picks)):
        if slot < counts[parent]:
            u, s, vt = spectra[parent]
            child += s[slot] * np.outer(u[:, slot], vt[slot])
    return child


def dropped(parents: Sequence[LoraDelta]) -> np.ndarray:
    """DARE before it is factored; the matrices here are one row block."""
    generator, child = seeded(), np.zeros(parents[0].shape)
    for weight, delta in zip(PULL, parents, strict=True):
        stays = torch.rand(delta.shape, generator=generator, dtype=torch.float64).numpy() < DENSITY
        child += weight / DENSITY * dense(delta) * stays
    return child


def drifted(parents: Sequence[LoraDelta]) -> np.ndarray:
    u, s, vt = np.linalg.svd(dense(parents[0]), full_matrices=False)
    count = min(parents[0].rank, *parents[0].shape)
    drift = np.exp(STEP * torch.randn(count, generator=seeded(), dtype=torch.float64).numpy())
    return np.asarray((u[:, :count] * (s[:count] * drift)) @ vt[:count])


def grown(parents: Sequence[LoraDelta]) -> np.ndarray:
    generator, matrix = seeded(), dense(parents[0])
    outputs, inputs = matrix.shape
    b = torch.randn(outputs, 1, generator=generator, dtype=torch.float64).numpy()
    a = torch.randn(1, inputs, generator=generator, dtype=torch.float64).numpy()
    size = STEP * np.linalg.norm(matrix) / np.linalg.norm(b @ a)
    return best(matrix, RANK - 1) + np.asarray(size * b @ a)


BLENDS = {
    "concatenation": Case(lambda each: concatenate(each, PULL), straight),
    "weighted sum": Case(lambda each: weighted_sum(each, PULL, RANK).delta, lambda each: best(straight(each), RANK)),
    "slerp": Case(lambda each: slerp(each[0], each[1], 0.3), lambda each: on_the_arc(each, 0.3)),
    "crossover": Case(lambda each: cross_directions(each[0], each[1], 0.5, seeded()), crossed),
    "ties": Case(
        lambda each: ties(each, PULL, DENSITY, RANK).delta,
        lambda each: best(dense_ties([dense(one) for one in each], list(PULL), DENSITY), RANK),
    ),
    "dare": Case(lambda each: dare(each, PULL, DENSITY, RANK, seeded()).delta, lambda each: best(dropped(each), RANK)),
    "dare, nothing cut": Case(lambda each: dare(each, PULL, DENSITY, min(each[0].shape), seeded()).delta, dropped),
}
MUTATIONS = {
    "singular values": Case(lambda each: mutate_values(each[0], STEP, seeded()).delta, drifted),
    "new directions": Case(lambda each: new_directions(each[0], STEP, 1, RANK, seeded()).delta, grown),
}


def rotated(parents: Sequence[LoraDelta]) -> LoraDelta:
    """No matrix is expected of it: signs of singular vectors decide which way they turn."""
    return rotate(parents[0], STEP, seeded()).delta
