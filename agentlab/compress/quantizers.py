"""Ways to round a matrix to a grid: to the nearest, with errors made good by later inputs, with scaled inputs.

`recipe.QUANTIZERS` names them; a package's is such a `GridQuantizer`, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch  # noqa: TID253 - reached lazily, when a model is compressed
from torch import Tensor  # noqa: TID253 - as above

from agentlab.compress.grid import Codes, Grid, per_input, round_to_grid, scales_of

BLOCK = 128  # inputs after which an error reaches those further on
_DAMPING = 0.01  # of the mean curvature, added to the diagonal
_MOST_DAMPING = 10.0
_ALPHAS = 10  # exponents that a search of scales tries


@dataclass(frozen=True, slots=True, eq=False)
class Curvature:
    """How errors in the weights of an input show, and how others make them good (arXiv 2210.17323)."""

    diagonal: Tensor  # mean square of every input, in the layer's order
    order: Tensor  # the inputs as they are worked through
    factor: Tensor  # upper Cholesky factor of the inverse of the damped X^T X, (inputs, inputs), in that order

    @classmethod
    def of(cls, hessian: Tensor, *, by_activation: bool = True) -> "Curvature":
        """From X^T X / n, float32 (inputs, inputs). Inputs that were always zero are taken for independent ones.

        `hessian`: finite; `by_activation`: begin with the inputs that are largest, whose errors then have most others
        to go to.

        Raises:
            ValueError: it is no matrix of squares.
        """
        diagonal = hessian.diagonal().clone()
        order = torch.arange(len(diagonal), device=hessian.device)
        if by_activation:
            order = diagonal.argsort(descending=True, stable=True)
        matrix = hessian[order][:, order].double()
        dead = matrix.diagonal() == 0
        matrix.diagonal()[dead] = 1.0
        mean, damping = matrix.diagonal().mean(), _DAMPING
        while damping <= _MOST_DAMPING:
            damped = matrix.clone()
            damped.diagonal().add_(damping * mean)
            lower, failed = torch.linalg.cholesky_ex(damped)
            if not failed:
                factor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
                return cls(diagonal, order, factor.float())
            damping *= 10
        raise ValueError("the Hessian of the inputs is not positive definite")


def rtn(weight: Tensor, grid: Grid, importance: Tensor | None = None) -> Codes:
    """Round a matrix (outputs, inputs) to the nearest codes; for `importance` see `scales_of`."""
    grid = grid.fit_to_inputs(weight.shape[1])
    return round_to_grid(weight, grid, scales_of(weight, grid, importance))


def gptq(weight: Tensor, curvature: Curvature, grid: Grid) -> Codes:
    """Round input by input; the error of each is made good by those that follow (arXiv 2210.17323).

    Scales are fixed before, so that groups stay neighbours in whatever order the inputs are worked through. Weights
    that are zero stay zero. `weight`: float32 (outputs, inputs).
    """
    inputs = weight.shape[1]
    grid = grid.fit_to_inputs(inputs)
    scales = scales_of(weight, grid, curvature.diagonal)
    order = curvature.order
    # transposed, so that the weights of an input lie together
    transposed, scale = weight.T[order].contiguous(), per_input(scales, inputs).T[order].contiguous()
    nonzero = transposed != 0
    codes = torch.empty_like(transposed)

    def encode(row: int, values: Tensor) -> Tensor:
        codes[row] = (values / scale[row]).round_().clamp_(grid.lowest, grid.highest) * nonzero[row]
        return codes[row] * scale[row]

    work_through(transposed, curvature.factor, encode)
    restored = torch.empty_like(codes)
    restored[order] = codes
    return Codes(grid, restored.T.contiguous().to(torch.int8), scales)


def awq_scales(weights: Sequence[Tensor], hessian: Tensor, grid: Grid, size: Tensor | None = None) -> Tensor:
    """Factors for the inputs that matrices share: multiplied by them, they lose least by rounding (arXiv 2306.00978).

    Inputs are to be divided by them, which the layer before does; then what is rounded is a plain matrix.

    Args:
        weights: float32 (outputs, inputs), of all layers that read these inputs.
        hessian: X^T X / n of the inputs.
        size: of every input, the root of its mean square by default; inputs of one size get one factor.

    Returns:
        float32 (inputs,), powers of their size; all 1 where no other power is better.
    """
    size = hessian.diagonal().sqrt() if size is None else size
    size = torch.where(size > 0, size, size[size > 0].min() if (size > 0).any() else 1.0)
    best, least_loss = torch.ones_like(size), float("inf")
    for step in range(_ALPHAS):
        scales = size ** (step / _ALPHAS)
        scales = scales / (scales.max() * scales.min()).sqrt()
        loss = sum(squared_error(rtn(weight * scales, grid).weight() / scales - weight, hessian) for weight in weights)
        if loss < least_loss:
            best, least_loss = scales, loss
    return best


def squared_error(change: Tensor, hessian: Tensor) -> float:
    """Mean squared change of the outputs, summed over them, by a change of the weights (outputs, inputs)."""
    return float(((change @ hessian) * change).sum())


def work_through(weights: Tensor, factor: Tensor, encode: Callable[[int, Tensor], Tensor]) -> None:
    """Go through the inputs; what `encode` takes from the weights of one is made good by those that follow.

    Args:
        weights: (inputs, outputs) in the order of the factor; changed.
        factor: see `Curvature`.
        encode: from an input's place and its weights as they are by then, to those it gets.
    """
    for start in range(0, len(weights), BLOCK):
        stop = min(start + BLOCK, len(weights))
        part, upper = weights[start:stop], factor[start:stop, start:stop]
        errors = torch.empty_like(part)
        for row in range(stop - start):
            errors[row] = (part[row] - encode(start + row, part[row])) / upper[row, row]
            part[row + 1 :].addr_(upper[row, row + 1 :], errors[row], alpha=-1)
        weights[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)


@dataclass(frozen=True, slots=True)
class GridQuantizer:
    """How all matrices that read one input are rounded.

    `rounding`: from X^T X / n of the input, float32, and a grid, to what rounds a matrix (outputs, inputs); it raises
    ValueError for squares that can be none. `scales_inputs`: AWQ's factors come first, so these are of scaled inputs.
    """

    rounding: Callable[[Tensor, Grid], Callable[[Tensor], Codes]]
    scales_inputs: bool = False


RTN = GridQuantizer(lambda _, grid: partial(rtn, grid=grid))
GPTQ = GridQuantizer(lambda squares, grid: partial(gptq, curvature=Curvature.of(squares), grid=grid))
AWQ = GridQuantizer(lambda squares, grid: partial(rtn, grid=grid, importance=squares.diagonal()), scales_inputs=True)
