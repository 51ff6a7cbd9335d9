"""A quantizer on a grid: to the nearest, for the larger half of the inputs first."""

from collections.abc import Callable

from torch import Tensor

from agentlab.compress.grid import Codes, Grid
from agentlab.compress.quantizers import GridQuantizer, rtn


def prepare_rounding(squares: Tensor, grid: Grid) -> Callable[[Tensor], Codes]:
    size = squares.diagonal()
    return lambda weight: rtn(weight, grid, size * (size >= size.median()))


HALVES = GridQuantizer(prepare_rounding)
