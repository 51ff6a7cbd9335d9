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
    """What weights are rounded to: the code 0 is zero, since the readers of packed files disagree on any other."""

    bits: int  # of a code: 2, 3, 4 or 8
    group: int | None = 64  # neighbouring inputs that share a scale; None for all inputs of an output

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

    def weight(self) -> Tensor:
        """The numbers that the codes stand for, float32."""
        return (_split_groups(self.codes, self.grid).float() * self.scales[..., None]).reshape(self.codes.shape)

    def bits(self) -> int:
        return self.codes.numel() * self.grid.bits + self.scales.numel() * _SCALE_BITS


def scales_of(weight: Tensor, grid: Grid, importance: Tensor | None = None) -> Tensor:
    """The scale of every group, float32 (outputs, groups), for a grid that fits the inputs.

    `weight` is float32 (outputs, inputs). With `importance` of every input, such as its mean square, a range is shrunk
    where that leaves a smaller squared error; without it, a range covers all weights.
    """
    grouped = _split_groups(weight, grid)
    largest = grouped.abs().amax(-1)
    scales = _scales_to(largest, grid)
    if importance is None:
        return scales
    weights = _split_groups(importance[None], grid)

    def error(scales: Tensor) -> Tensor:
        codes = (grouped / scales[..., None]).round_().clamp_(grid.lowest, grid.highest)
        return codes.mul_(scales[..., None]).sub_(grouped).square_().mul_(weights).sum(-1)

    best = error(scales)
    for share in _SHRUNK[1:]:
        candidate = _scales_to(largest * share, grid)
        candidate_error = error(candidate)
        better = candidate_error < best
        best = torch.where(better, candidate_error, best)
        scales = torch.where(better, candidate, scales)
    return scales


def round_to_grid(weight: Tensor, grid: Grid, scales: Tensor) -> Codes:
    """Every weight as the nearest code of its group."""
    codes = (_split_groups(weight, grid) / scales[..., None]).round_().clamp_(grid.lowest, grid.highest)
    return Codes(grid, codes.to(torch.int8).reshape(weight.shape), scales)


def per_input(values: Tensor, inputs: int) -> Tensor:
    """What belongs to groups, (outputs, groups), for each of the inputs: (outputs, inputs)."""
    return values.repeat_interleave(inputs // values.shape[1], 1)


def _scales_to(largest: Tensor, grid: Grid) -> Tensor:
    """Scales with which the codes cover the numbers up to `largest` on both sides of zero."""
    reach = largest * 2
    scales = (reach / (grid.highest - grid.lowest)).clamp(min=_SMALLEST_SCALE, max=32768.0)
    return torch.where(reach > 0, scales, 1.0).bfloat16().float()


def _split_groups(matrix: Tensor, grid: Grid) -> Tensor:
    """As (rows, groups, inputs of a group)."""
    return matrix.reshape(matrix.shape[0], -1, grid.group or matrix.shape[1])
