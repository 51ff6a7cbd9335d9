"""Ways to leave weights out: zeros in matrices, and narrower MLPs or fewer layers, which leave a plain checkpoint.

A pattern is the share of zeros, or (n, m): n of m neighbours are kept.
"""

from collections.abc import Sequence
from typing import Any

import torch  # noqa: TID253 - reached lazily, when a model is compressed
from torch import Tensor  # noqa: TID253 - as above

from agentlab.compress.architecture import frozen_copy, layers_of
from agentlab.compress.calibration import CalibrationStatistics
from agentlab.compress.quantizers import BLOCK, Curvature, work_through
from agentlab.errors import UsageError

Pattern = float | tuple[int, int]
_MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
PATTERNS = {"2:4": (2, 4), "4:8": (4, 8)}


def check_pattern(pattern: Pattern, inputs: int) -> None:
    """See that a layer with so many inputs can have it.

    Raises:
        UsageError: it cannot.
    """
    if isinstance(pattern, tuple):
        kept_count, group_size = pattern
        if not 0 < kept_count < group_size or BLOCK % group_size or inputs % group_size:
            raise UsageError(
                f"Cannot keep {kept_count} of every {group_size} weights in a layer with {inputs} inputs.",
                hint="Use 2:4, 4:8, or a share such as 0.5.",
            )
    elif not 0 < pattern < 1:
        raise UsageError(f"A sparsity of {pattern} is not possible.", hint="Use a share such as 0.5.")


def magnitude(weight: Tensor, pattern: Pattern) -> Tensor:
    """The matrix (outputs, inputs) without its smallest weights."""
    scores = weight.abs()
    if not isinstance(pattern, tuple):
        scores = scores.reshape(1, -1)
    return weight * mask_largest(scores, pattern).reshape(weight.shape)


def wanda(weight: Tensor, diagonal: Tensor, pattern: Pattern) -> Tensor:
    """Without the weights that move an output least: by size, times that of the input (arXiv 2306.11695).

    `weight`: float32 (outputs, inputs); `diagonal`: mean square of every input.
    """
    return weight * mask_largest(weight.abs() * diagonal.sqrt(), pattern)


def sparsegpt(weight: Tensor, curvature: Curvature, pattern: Pattern) -> Tensor:
    """Without weights that others make good, which are changed for that (arXiv 2301.00774).

    Args:
        weight: float32 (outputs, inputs).
        curvature: of its inputs, in their own order where n of m are kept.
        pattern: a share counts in blocks of 128 inputs over all outputs.
    """
    transposed = weight.T[curvature.order].contiguous()
    result, mask = torch.empty_like(transposed), torch.empty_like(transposed, dtype=torch.bool)
    loss = curvature.factor.diagonal()[:, None]
    size = pattern[1] if isinstance(pattern, tuple) else BLOCK

    def choose(row: int, values: Tensor) -> Tensor:
        if row % size == 0:
            scores = (transposed[row : row + size] / loss[row : row + size]).square()
            if isinstance(pattern, tuple):
                mask[row : row + size] = mask_largest(scores.T, pattern).T
            else:
                mask[row : row + size] = mask_largest(scores.reshape(1, -1), pattern).reshape(scores.shape)
        result[row] = values * mask[row]
        return result[row]

    work_through(transposed, curvature.factor, choose)
    back = torch.empty_like(result)
    back[curvature.order] = result
    return back.T.contiguous()


def mask_largest(scores: Tensor, pattern: Pattern) -> Tensor:
    """Where the largest scores of each row lie: bool of their shape."""
    if isinstance(pattern, tuple):
        groups = scores.reshape(-1, pattern[1])
        zeros = pattern[1] - pattern[0]
    else:
        groups, zeros = scores, round(pattern * scores.shape[1])
    mask = torch.ones_like(groups, dtype=torch.bool)
    mask.scatter_(1, groups.topk(zeros, 1, largest=False, sorted=False).indices, False)
    return mask.reshape(scores.shape)


@torch.no_grad()
def narrow(model: Any, statistics: CalibrationStatistics, width: int) -> None:
    """Keep the `width` channels of each layer's MLP that are largest on average.

    Weighing them by their columns of `down_proj` as well did worse on SmolLM2 (KL 0.215 against 0.204 at 5/6 width).
    The model's config is changed as well.

    Raises:
        UsageError: `width` is not above 0 and below the channels that there are.
    """
    inner = model.config.intermediate_size
    if not 0 < width < inner:
        raise UsageError(f"The MLP has {inner} channels; it cannot be cut to {width}.", hint=f"Keep 1 to {inner - 1}.")
    for index, layer in enumerate(layers_of(model)):
        channels = statistics.layer(index, model.device).channels.topk(width).indices.sort().values
        for name in _MLP:
            module = layer.get_submodule(name)
            down = name.endswith("down_proj")
            module.weight = frozen_copy(module.weight[:, channels] if down else module.weight[channels])
            if module.bias is not None and not down:
                module.bias = frozen_copy(module.bias[channels])
            module.in_features, module.out_features = module.weight.shape[::-1]
        layer.mlp.intermediate_size = width
    model.config.intermediate_size = width


def drop_layers(model: Any, influences: Sequence[float], count: int) -> list[int]:
    """Take out the layers that change the residual stream least (arXiv 2403.03853), also of the model's config.

    Returns:
        Those that were taken out, by their numbers before.

    Raises:
        UsageError: no layer would stay, or none would go.
    """
    layers = layers_of(model)
    if not 0 < count < len(layers):
        raise UsageError(f"Cannot remove {count} of {len(layers)} layers.", hint=f"Remove 1 to {len(layers) - 1}.")
    dropped = sorted(sorted(range(len(layers)), key=influences.__getitem__)[:count])
    model.model.layers = torch.nn.ModuleList([layer for index, layer in enumerate(layers) if index not in dropped])
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = index  # its place in the cache
    config = model.config
    config.num_hidden_layers = len(layers) - count
    if getattr(config, "layer_types", None):
        config.layer_types = [kind for index, kind in enumerate(config.layer_types) if index not in dropped]
    if hasattr(config, "max_window_layers"):
        config.max_window_layers = min(config.max_window_layers, config.num_hidden_layers)
    return dropped
