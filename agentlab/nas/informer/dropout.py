"""Dropout that is not the most expensive operation of a small network on a CPU."""

import torch  # noqa: TID253 - network modules are only imported to build a network
import torch.nn.functional as F  # noqa: N812, TID253 - the name everybody uses
from torch import Tensor, nn  # noqa: TID253 - as above

_LEVELS = 2**16


class Dropout(nn.Dropout):
    """Zeroes elements with probability p and scales the others by 1 / (1 - p), as `nn.Dropout` does.

    On a CPU torch draws 64 random bits for each element, one after the other; here one draw serves four elements.
    That quantises p to a multiple of 2^-16, and the scale goes with the quantised p.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name nn.Dropout gives it
        """Any shape, to the same shape."""
        level = round(self.p * _LEVELS)
        if not self.training or level == 0:
            return input
        if input.device.type != "cpu":
            return F.dropout(input, self.p)
        bits = torch.empty((input.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        drawn = bits.view(torch.int16)[: input.numel()].view(input.shape)
        kept = torch.ge(drawn, level - _LEVELS // 2, out=torch.empty_like(input, requires_grad=False))
        return input * kept.mul_(_LEVELS / (_LEVELS - level))
