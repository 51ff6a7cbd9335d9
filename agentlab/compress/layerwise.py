"""A model quantized or pruned in place, one decoder layer after the other, by the statistics of one calibration."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch  # noqa: TID253 - reached lazily, when a model is compressed
from torch import Tensor  # noqa: TID253 - as above

from agentlab.compress.architecture import INPUTS, Check, LayerInput, layer_name, layers_of, put_weights
from agentlab.compress.calibration import CalibrationStatistics, LayerStatistics
from agentlab.compress.grid import Codes, Grid
from agentlab.compress.pruners import Pattern, check_pattern, magnitude, sparsegpt, wanda
from agentlab.compress.quantizers import Curvature, GridQuantizer, awq_scales
from agentlab.errors import DataError

Pruner = Literal["magnitude", "wanda", "sparsegpt"]


@torch.no_grad()
def quantize(
    model: Any, statistics: CalibrationStatistics, method: GridQuantizer, grid: Grid, *, check: Check
) -> dict[str, Codes]:
    """Round all linear layers of the decoder; embedding and head stay as they are.

    AWQ multiplies inputs by factors and divides what comes before by them: the gains of the norm, or the rows of
    `v_proj` and `up_proj`. The model stays a plain one of its architecture, and the codes are of plain matrices, so
    every format takes them.

    Args:
        model: float32; afterwards its weights are what the codes stand for.

    Returns:
        Codes by the name of the module.

    Raises:
        DataError: statistics that cannot be those of inputs.
    """
    all_codes: dict[str, Codes] = {}
    for index, layer, layer_statistics in _layers(model, statistics, check):
        squares = dict(layer_statistics.squares)
        if method.scales_inputs:
            for layer_input in reversed(INPUTS):  # what comes before is itself scaled by what it reads, later
                scales = _awq_factors(layer, layer_input, squares[layer_input.key], grid, model.config)
                _fold(layer, layer_input, scales)
                squares[layer_input.key] = squares[layer_input.key] / scales / scales[:, None]
        for layer_input in INPUTS:
            with _naming(index, layer_input):
                rounding = method.rounding(squares[layer_input.key], grid)
            codes = {layer_name(index, name): rounding(_weight(layer, name)) for name in layer_input.readers}
            put_weights(model, codes)
            all_codes |= codes
    return all_codes


@torch.no_grad()
def prune(model: Any, statistics: CalibrationStatistics, method: Pruner, pattern: Pattern, *, check: Check) -> None:
    """Set weights of all linear layers of the decoder to zero; see `quantize`.

    Raises:
        UsageError: a layer cannot have the pattern; then nothing was changed.
        DataError: see `quantize`.
    """
    for layer in layers_of(model):
        for layer_input in INPUTS:
            check_pattern(pattern, _weight(layer, layer_input.readers[0]).shape[1])
    for index, layer, layer_statistics in _layers(model, statistics, check):
        for layer_input in INPUTS:
            pruned = partial(magnitude, pattern=pattern)
            if method == "wanda":
                pruned = partial(wanda, diagonal=layer_statistics.squares[layer_input.key].diagonal(), pattern=pattern)
            elif method == "sparsegpt":
                with _naming(index, layer_input):
                    curvature = Curvature.of(layer_statistics.squares[layer_input.key], by_activation=False)
                pruned = partial(sparsegpt, curvature=curvature, pattern=pattern)
            put_weights(model, {layer_name(index, name): pruned(_weight(layer, name)) for name in layer_input.readers})


def _layers(model: Any, statistics: CalibrationStatistics, check: Check) -> Iterator[tuple[int, Any, LayerStatistics]]:
    for index, layer in enumerate(layers_of(model)):
        check()
        yield index, layer, statistics.layer(index, model.device)


def _weight(layer: Any, name: str) -> Tensor:
    weight: Tensor = layer.get_submodule(name).weight.detach()
    return weight.float()


@contextmanager
def _naming(index: int, layer_input: LayerInput) -> Iterator[None]:
    """Say of which layer the squares are that can be none of inputs."""
    try:
        yield
    except ValueError as error:
        raise DataError(
            f"{layer_name(index, layer_input.readers[0])}: {error}.", hint="Use more calibration text."
        ) from error


def _awq_factors(layer: Any, layer_input: LayerInput, squares: Tensor, grid: Grid, config: Any) -> Tensor:
    """Factors of an input that what comes before can take: heads that share a value share theirs."""
    size = squares.diagonal()
    if layer_input.key == "heads":
        dim = layer.get_submodule(layer_input.before).out_features // config.num_key_value_heads
        shared = size.reshape(config.num_key_value_heads, -1, dim).mean(1, keepdim=True)
        size = shared.expand(-1, config.num_attention_heads // config.num_key_value_heads, -1).reshape(-1)
    return awq_scales([_weight(layer, name) for name in layer_input.readers], squares, grid, size.sqrt())


def _fold(layer: Any, layer_input: LayerInput, scales: Tensor) -> None:
    """Multiply the columns of the readers, and divide the rows of what comes before."""
    for name in layer_input.readers:
        layer.get_submodule(name).weight.mul_(scales)
    before = layer.get_submodule(layer_input.before)
    if layer_input.key == "heads":  # of the heads that read a value, the first one's
        repeated = len(scales) // before.out_features
        scales = scales.reshape(-1, repeated, layer.self_attn.head_dim)[:, 0].reshape(-1)
    for parameter in before.parameters():
        parameter.div_(scales if parameter.ndim == 1 else scales[:, None])
