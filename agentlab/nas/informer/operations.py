"""Two operations that torch does slowly on a CPU: convolution of neighbouring steps, and dropout."""

import torch  # noqa: TID253 - network modules are only imported to build a network
import torch.nn.functional as F  # noqa: N812, TID253 - the name everybody uses
from torch import Tensor, nn  # noqa: TID253 - as above

_LEVELS = 2**16


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


class Dropout(nn.Dropout):
    """Zeroes elements with probability p and scales the others by 1 / (1 - p), as `nn.Dropout` does.

    On a CPU torch draws 64 random bits for each element, one after the other; here one draw serves four elements.
    That quantises p to a multiple of 2^-16, and the scale goes with the quantised p.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name nn.Dropout gives it
        level = round(self.p * _LEVELS)
        if not self.training or level == 0:
            return input
        if input.device.type != "cpu":
            return F.dropout(input, self.p)
        bits = torch.empty((input.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        draws = bits.view(torch.int16)[: input.numel()].view(input.shape)
        mask = torch.ge(draws, level - _LEVELS // 2, out=torch.empty_like(input, requires_grad=False))
        return input * mask.mul_(_LEVELS / (_LEVELS - level))
