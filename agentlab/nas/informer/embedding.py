"""What the network sees of each step: its values and neighbours, its position, its date."""

import math

import torch  # noqa: TID253 - network modules are only imported to build a network
from torch import Tensor, nn  # noqa: TID253 - as above

from agentlab.nas.informer.operations import CircularConv, Dropout


def sine_positions(length: int, width: int) -> Tensor:
    """Fixed positions, [length, width]: sines in the even columns, cosines in the odd ones. `width` is even."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    return torch.stack([torch.sin(position * rate), torch.cos(position * rate)], dim=-1).flatten(1)


class Embedding(nn.Module):
    """Circular convolution over three steps of values + sine positions + linear map of time features, then dropout."""

    positions: Tensor

    def __init__(self, channels: int, time_channels: int, width: int, length: int, dropout: float) -> None:
        super().__init__()
        self.value = CircularConv(channels, width)
        nn.init.kaiming_normal_(self.value.weight, mode="fan_in", nonlinearity="leaky_relu")
        self.time = nn.Linear(time_channels, width)
        self.register_buffer("positions", sine_positions(length, width), persistent=False)
        self.dropout = Dropout(dropout)

    def forward(self, values: Tensor, time: Tensor) -> Tensor:
        """[batch, length, channels] and [batch, length, time channels] to [batch, length, width]."""
        embedded = self.value(values) + self.time(time) + self.positions
        result: Tensor = self.dropout(embedded)
        return result
