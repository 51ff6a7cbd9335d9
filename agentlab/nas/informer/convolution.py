"""Convolution over time of steps that lie one after the other in memory, as attention leaves them."""

import torch  # noqa: TID253 - network modules are only imported to build a network
import torch.nn.functional as F  # noqa: N812, TID253 - the name everybody uses
from torch import Tensor, nn  # noqa: TID253 - as above


class CircularConv(nn.Conv1d):
    """Each step with the one before and the one after it; the first and the last step are neighbours.

    The same as a circular `nn.Conv1d` with kernel 3 on transposed steps, as one matrix product without transposing.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, kernel_size=3, padding=1, padding_mode="circular")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name nn.Conv1d gives it
        """[batch, length, channels] to [batch, length, width]."""
        neighbours = torch.cat([input.roll(1, dims=1), input, input.roll(-1, dims=1)], dim=-1)
        return F.linear(neighbours, self.weight.transpose(1, 2).flatten(1), self.bias)
