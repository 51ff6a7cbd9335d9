"""Integers that weights are rounded to: one scale for a group of inputs of an output, and what they take."""

from dataclasses import dataclass, replace
from math import gcd

import torch  # noqa: TID253 - reached lazily, when a model is compressed
from torch import Tensor  # noqa: TID253 - as above

from agentlab.errors import UsageError

BITS = (2, 3, 4, 8)
_SMALLEST_GROUP = 16  # below it, scales take more than the codes save
_SCALE_BITS = 16
_SMALLEST_SCALE = 2.0**-17  # below it float16 has fewer digits than bfloat16
_SHRUNK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65)  # of the range that is covered


@dataclass(frozen=True, slots=True)
class Grid:
    """What weights are rounded to."""

    bits: int  # of a code: 2, 3, 4 or 8
    group: int | None = 64  # neighbouring inputs that share a scale; None for all inputs of an output
    symmetric: bool = True  # zero is the code 0; else each group has a code of its own for it

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise UsageError(f"Weights cannot be quantized to {self.bits} bits.", hint="Use 2, 3, 4 or 8.")
        if self.group is not None and self.group < _SMALLEST_GROUP:
            raise UsageError(
                f"A group of {self.group} weights is too small.", hint=f"Use {_SMALLEST_GROUP} or more, or null."
            )

    def __str__(self) -> str:
        return f"int{self.bits} in {f'groups of {self.group}' if self.group else 'rows'}"

    @property
    def lowest(self) -> int:
        return -(1 << (self.bits - 1))

    @property
    def highest(self) -> int:
        return (1 << (self.bits - 1)) - 1

    def fit_to_inputs(self, inputs: int) -> "Grid":
        """The grid of a layer with so many inputs: where the group does not divide them, the largest part of it does.

        576 inputs in groups of 128 become groups of 64; where less than 16 were left, an output has one scale.
        """
        if self.group is None or inputs % self.group == 0:
            return self
        part = gcd(inputs, self.group)
        return replace(self, group=part if part >= _SMALLEST_GROUP else None)


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """A rounded matrix of shape (outputs, inputs)."""

    grid: Grid  # as it fits the inputs
    codes: Tensor  # int8 (outputs, inputs)
    scales: Tensor  # float32 (outputs, groups), each exact in float16 and in bfloat16, so runtimes of both agree
    zeros: Tensor | None  # int8 (outputs, groups), the code of zero; None where it is 0

    def weight(self) -> Tensor:
        """The numbers that the codes stand for, float32."""
        grouped = _split_groups(self.codes, self.grid).float()
        if self.zeros is not None:
            grouped = grouped - self.zeros[..., None]
        return (grouped * self.scales[..., None]).reshape(self.codes.shape)

    def bits(self) -> int:
        zeros = 0 if self.zeros is None else self.zeros.numel() * self.grid.bits
        return self.codes.numel() * self.grid.bits + self.scales.numel() * _SCALE_BITS + zeros


def scales_of(weight: Tensor, grid: Grid, importance: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Scales and zeros of every group, float32 and int8 of shape (outputs, groups), for a grid that fits the inputs.

    `weight` is float32 (outputs, inputs). With `importance` of every input, such as its mean square, a range is shrunk
    where that leaves a smaller squared error; without it, a range covers all weights.
    """
    grouped = _split_groups(weight, grid)
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    scales, zeros = _range(low, high, grid)
    if importance is None:
        return scales, zeros
    weights = _split_groups(importance[None], grid)

    def error(scales: Tensor, zeros: Tensor | None) -> Tensor:
        offset = 0 if zeros is None else zeros[..., None]
        codes = (grouped / scales[..., None]).round_().add_(offset).clamp_(grid.lowest, grid.highest)
        return codes.sub_(offset).mul_(scales[..., None]).sub_(grouped).square_().mul_(weights).sum(-1)

    best = error(scales, zeros)
    for share in _SHRUNK[1:]:
        candidate = _range(low * share, high * share, grid)
        candidate_error = error(*candidate)
        better = candidate_error < best
        best = torch.where(better, candidate_error, best)
        scales = torch.where(better, candidate[0], scales)
        zeros = None if zeros is None or candidate[1] is None else torch.where(better, candidate[1], zeros)
    return scales, zeros


def round_to_grid(weight: Tensor, grid: Grid, scales: Tensor, zeros: Tensor | None) -> Codes:
    """Every weight as the nearest code of its group."""
    codes = _split_groups(weight, grid) / scales[..., None]
    codes = codes.round_() if zeros is None else codes.round_().add_(zeros[..., None])
    return Codes(grid, codes.clamp_(grid.lowest, grid.highest).to(torch.int8).reshape(weight.shape), scales, zeros)


def per_input(values: Tensor, inputs: int) -> Tensor:
    """What belongs to groups, (outputs, groups), for each of the inputs: (outputs, inputs)."""
    return values.repeat_interleave(inputs // values.shape[1], 1)


def _range(low: Tensor, high: Tensor, grid: Grid) -> tuple[Tensor, Tensor | None]:
    """Scales and zeros with which the codes cover the numbers from `low` to `high`."""
    steps = grid.highest - grid.lowest
    reach = torch.maximum(high, -low) * 2 if grid.symmetric else high - low
    scales = torch.where(reach > 0, (reach / steps).clamp(min=_SMALLEST_SCALE, max=32768.0), 1.0).bfloat16().float()
    if grid.symmetric:
        return scales, None
    return scales, (grid.lowest - low / scales).round().clamp(grid.lowest, grid.highest).to(torch.int8)


def _split_groups(matrix: Tensor, grid: Grid) -> Tensor:
    """As (rows, groups, inputs of a group)."""
    return matrix.reshape(matrix.shape[0], -1, grid.group or matrix.shape[1])
