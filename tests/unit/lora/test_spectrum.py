"""The factored decomposition is that of the dense matrix."""

import numpy as np
import torch
from hypothesis import given

from agentlab.lora.delta import LoraDelta, zero
from agentlab.lora.spectrum import decompose, singular_values
from tests.unit.lora.deltas import dense, families, relative_error


@given(families(most=1))
def test_it_is_the_decomposition_of_the_dense_matrix(family: list[LoraDelta]) -> None:
    delta = family[0]
    spectrum = decompose(delta)
    expected = np.linalg.svd(dense(delta), compute_uv=False)[: len(spectrum.s)]
    assert np.allclose(spectrum.s, expected, rtol=0, atol=1e-12 * expected[0])
    assert np.allclose(singular_values(delta), expected, rtol=0, atol=1e-12 * expected[0])
    assert np.allclose(spectrum.u.T @ spectrum.u, np.eye(len(spectrum.s)), atol=1e-12)
    assert np.allclose(spectrum.v.T @ spectrum.v, np.eye(len(spectrum.s)), atol=1e-12)
    assert relative_error(spectrum.delta().dense(), dense(delta)) < 1e-12


def test_factors_made_of_it_have_equal_norms() -> None:
    child = decompose(LoraDelta(1e-3 * torch.eye(3, 5), 1e3 * torch.eye(4, 3))).delta()
    assert np.allclose(np.linalg.norm(child.a, axis=1), np.linalg.norm(child.b, axis=0))


def test_a_delta_of_rank_0_has_no_directions() -> None:
    assert len(decompose(zero((4, 6))).s) == 0
    assert decompose(zero((4, 6))).norm == 0
