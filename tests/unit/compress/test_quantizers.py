"""Rounding to a grid, and the two ways to lose less by it."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.compress.architecture import linears, on_a_grid
from agentlab.compress.grid import Codes, Grid
from agentlab.compress.layerwise import quantize
from agentlab.compress.quantizers import AWQ, GPTQ, RTN, Curvature, GridQuantizer, awq_scales, gptq, rtn, squared_error
from agentlab.errors import UsageError

from .decoders import KINDS, decoder, logits, nothing, statistics

GRIDS = st.builds(Grid, st.sampled_from((2, 3, 4, 8)), st.sampled_from((None, 16, 32, 64, 128)))
SEEDS = st.integers(0, 2**32 - 1)
STORED = (torch.float16, torch.bfloat16)  # types that scales are stored in


def problem(seed: int, inputs: int = 96, outputs: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix, and X^T X / n of correlated inputs of very different sizes, two of which are never there."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(200, inputs, generator=generator) @ torch.randn(inputs, inputs, generator=generator)
    draw *= torch.randn(inputs, generator=generator).exp()
    draw[:, :2] = 0
    return torch.randn(outputs, inputs, generator=generator), draw.T @ draw / 200


def in_range(codes: Codes) -> bool:
    grid = codes.grid
    scales_are_stored = all(torch.equal(codes.scales, codes.scales.to(kind).float()) for kind in STORED)
    return int(codes.codes.min()) >= grid.lowest and int(codes.codes.max()) <= grid.highest and scales_are_stored


@given(GRIDS, SEEDS, st.floats(1e-3, 1e3))
def test_nearest_codes_are_in_range_and_at_most_a_step_away(grid: Grid, seed: int, size: float) -> None:
    weight = problem(seed)[0] * size
    codes = rtn(weight, grid)
    assert in_range(codes)
    step = codes.scales.repeat_interleave(96 // codes.scales.shape[1], 1)
    # half a step; at the ends half a step more, and what scales of eight digits lack
    bound = step * (1 + 2**grid.bits * 2**-8)
    assert ((codes.weight() - weight).abs() <= bound).all()


@settings(max_examples=20)
@given(GRIDS, SEEDS)
def test_gptq_loses_no_more_than_rounding(grid: Grid, seed: int) -> None:
    weight, hessian = problem(seed)
    codes = gptq(weight, Curvature.of(hessian), grid)
    assert in_range(codes)
    loss, plain = (squared_error(coded.weight() - weight, hessian) for coded in (codes, rtn(weight, grid)))
    assert loss <= plain * 1.02 + 1e-6


@settings(max_examples=20)
@given(SEEDS)
def test_gptq_leaves_zeros_and_never_seen_inputs_alone(seed: int) -> None:
    weight, hessian = problem(seed)
    weight[:, ::3] = 0
    codes = gptq(weight, Curvature.of(hessian), Grid(4, 32))
    assert not codes.weight()[:, ::3].any()
    # but for the share of a range that may be cut off
    assert ((codes.weight() - weight)[:, 1].abs() <= 0.35 * weight[:, 1].abs() + codes.scales[:, 0]).all()


def test_gptq_on_independent_inputs_is_plain_rounding() -> None:
    weight = problem(0)[0]
    codes = gptq(weight, Curvature.of(torch.eye(96)), Grid(8, 32))
    assert (codes.weight() - weight).abs().max() < rtn(weight, Grid(8, 32)).scales.max()


def test_inputs_that_depend_on_each_other_get_more_damping() -> None:
    one = torch.ones(96, 96)
    assert torch.isfinite(Curvature.of(one).factor).all()
    with pytest.raises(ValueError, match="not positive definite"):
        Curvature.of(-torch.eye(96))


@settings(max_examples=20)
@given(SEEDS)
def test_awq_is_never_worse_than_no_factors(seed: int) -> None:
    weight, hessian = problem(seed)
    scales = awq_scales([weight], hessian, Grid(3, 32))
    error = squared_error(rtn(weight * scales, Grid(3, 32)).weight() / scales - weight, hessian)
    assert error <= squared_error(rtn(weight, Grid(3, 32)).weight() - weight, hessian) * 1.0001
    assert (scales > 0).all()


def test_bits_count_codes_and_scales() -> None:
    weight = torch.randn(10, 64)
    assert rtn(weight, Grid(4, 32)).bits() == 640 * 4 + 20 * 16
    assert rtn(weight, Grid(8, None)).bits() == 640 * 8 + 10 * 16


def test_groups_that_do_not_fit() -> None:
    assert Grid(4, 128).fit_to_inputs(576) == Grid(4, 64)
    assert Grid(4, 128).fit_to_inputs(1536) == Grid(4, 128)
    assert Grid(4, 64).fit_to_inputs(200) == Grid(4, None)
    with pytest.raises(UsageError, match="5 bits"):
        Grid(5)
    with pytest.raises(UsageError, match="group of 8"):
        Grid(4, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_models_in_order_of_what_they_lose(kind: str, tmp_path: Path) -> None:
    before = logits(decoder(kind)).log_softmax(-1)
    divergences = {}
    quantizers = {"rtn": RTN, "gptq": GPTQ, "awq": AWQ, "awq-gptq": GridQuantizer(GPTQ.rounding, scales_inputs=True)}
    for method, quantizer in quantizers.items():
        model = decoder(kind)
        codes = quantize(model, statistics(model, tmp_path), quantizer, Grid(3, 32), check=nothing)
        assert codes.keys() == linears(model).keys()
        after = logits(model).log_softmax(-1)
        divergences[method] = float((before.exp() * (before - after)).sum(-1).mean())
    assert divergences["gptq"] < divergences["rtn"]
    assert divergences["awq"] < divergences["rtn"]


@pytest.mark.parametrize("kind", KINDS)
def test_factors_alone_change_nothing(kind: str, tmp_path: Path) -> None:
    changes = {"attention_bias": True, "mlp_bias": True} if kind == "llama" else {}
    model = decoder(kind, **changes)
    before = logits(model)
    quantize(model, statistics(model, tmp_path), AWQ, Grid(8, None), check=nothing)
    plain = decoder(kind, **changes)
    quantize(plain, statistics(plain, tmp_path), RTN, Grid(8, None), check=nothing)
    assert (logits(model) - before).abs().max() < 3 * (logits(plain) - before).abs().max()


@pytest.mark.parametrize(("bits", "is_recognised"), [(3, True), (4, True), (8, False)])
def test_what_was_rounded_to_4_bits_once_is_recognised(bits: int, is_recognised: bool) -> None:
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(1))
    assert not on_a_grid(weight)
    assert not on_a_grid(weight.bfloat16())
    assert on_a_grid(rtn(weight, Grid(bits, 32)).weight()) is is_recognised
