"""A delta is the product of its factors and nothing else."""

import pytest
import torch

from agentlab.errors import DataError
from agentlab.lora.delta import LoraDelta, zero
from tests.unit.lora.deltas import dense, random_delta, relative_error


def test_row_blocks_are_the_dense_matrix_in_parts() -> None:
    delta = random_delta((600, 5), 3, seed=1, scale=0.5)
    blocks = list(delta.row_blocks())
    assert len(blocks) == 3
    assert relative_error(torch.cat(blocks), dense(delta)) < 1e-12


def test_scaling_and_transposing_act_on_the_matrix() -> None:
    delta = random_delta((7, 5), 3, seed=1, scale=0.5)
    assert relative_error(delta.scaled(-3).dense(), -3 * dense(delta)) < 1e-12
    assert relative_error(delta.transpose().dense(), dense(delta).T) < 1e-12


def test_a_module_that_is_left_alone_has_a_delta_of_rank_0() -> None:
    nothing = zero((4, 6))
    assert nothing.rank == 0
    assert nothing.dense().shape == (4, 6)
    assert not nothing.dense().any()


def test_factors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="do not match"):
        LoraDelta(torch.zeros(3, 5), torch.zeros(7, 2))
