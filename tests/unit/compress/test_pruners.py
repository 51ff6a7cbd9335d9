"""Weights set to zero: how many, where, and what is lost."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.compress.architecture import linears
from agentlab.compress.grid import Grid
from agentlab.compress.layerwise import Pruner, prune, quantize
from agentlab.compress.pruners import Pattern, magnitude, sparsegpt, wanda
from agentlab.compress.quantizers import GPTQ, Curvature, squared_error
from agentlab.errors import UsageError

from .decoders import decoder, nothing, statistics
from .test_quantizers import SEEDS, problem

PATTERNS = st.one_of(st.sampled_from(((2, 4), (4, 8), (1, 4))), st.floats(0.1, 0.9))


def share(pattern: Pattern) -> float:
    return 1 - pattern[0] / pattern[1] if isinstance(pattern, tuple) else pattern


def all_ways(weight: torch.Tensor, hessian: torch.Tensor, pattern: Pattern) -> list[torch.Tensor]:
    curvature = Curvature.of(hessian, by_activation=False)
    return [
        magnitude(weight, pattern),
        wanda(weight, hessian.diagonal(), pattern),
        sparsegpt(weight, curvature, pattern),
    ]


@settings(max_examples=20)
@given(PATTERNS, SEEDS)
def test_masks_have_the_asked_sparsity(pattern: Pattern, seed: int) -> None:
    weight, hessian = problem(seed)
    for pruned in all_ways(weight, hessian, pattern):
        assert torch.isfinite(pruned).all()
        assert float((pruned == 0).double().mean()) == pytest.approx(share(pattern), abs=0.5 / 20 + 0.01)
        if isinstance(pattern, tuple):
            assert ((pruned.reshape(-1, pattern[1]) != 0).sum(1) <= pattern[0]).all()


def test_sparsegpt_loses_least() -> None:
    relative_errors = torch.zeros(3)
    for seed in range(10):
        weight, hessian = problem(seed)
        errors = torch.tensor([squared_error(pruned - weight, hessian) for pruned in all_ways(weight, hessian, 0.5)])
        relative_errors += errors / errors[0]
    assert relative_errors[2] < 0.85 * relative_errors[1] < 0.85 * relative_errors[0]


def test_wanda_looks_at_the_inputs() -> None:
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert wanda(weight, torch.tensor([100.0, 1.0, 1.0, 0.01]), 0.5).tolist() == [[1.0, 0.0, 3.0, 0.0]]
    assert magnitude(weight, 0.5).tolist() == [[0.0, 0.0, 3.0, 4.0]]


def test_zeros_stay_when_the_rest_is_rounded(tmp_path: Path) -> None:
    model = decoder()
    calibration = statistics(model, tmp_path)
    prune(model, calibration, "sparsegpt", 0.5, check=nothing)
    zeros = {name: module.weight == 0 for name, module in linears(model).items()}
    quantize(model, calibration, GPTQ, Grid(4, 32), check=nothing)
    for name, module in linears(model).items():
        assert not module.weight[zeros[name]].any()


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_patterns_that_do_not_fit_change_nothing(method: Pruner, tmp_path: Path) -> None:
    model = decoder(intermediate_size=202)
    calibration = statistics(model, tmp_path)
    for pattern in ((2, 4), (3, 5), (4, 4), 0.0, 1.0):
        with pytest.raises(UsageError):
            prune(model, calibration, method, pattern, check=nothing)
    assert all((module.weight != 0).any() for module in linears(model).values())
    assert torch.equal(
        model.model.layers[0].mlp.up_proj.weight, decoder(intermediate_size=202).model.layers[0].mlp.up_proj.weight
    )
