"""Embedding, encoder, distilling and decoder layers."""

import math

import torch  # noqa: TID253 - network modules are only imported to build a network
import torch.nn.functional as F  # noqa: N812, TID253 - the name everybody uses
from torch import Tensor, nn  # noqa: TID253 - as above

from agentlab.nas.config import ModelConfig
from agentlab.nas.informer.attention import Attention, Sparsity
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
        result: Tensor = self.dropout(self.value(values) + self.time(time) + self.positions)
        return result


class FeedForward(nn.Module):
    """Two linear maps per step with GELU and dropout after each."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.widen = nn.Linear(config.d_model, config.d_model * config.ff_multiplier)
        self.narrow = nn.Linear(config.d_model * config.ff_multiplier, config.d_model)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same shape."""
        result: Tensor = self.dropout(self.narrow(self.dropout(F.gelu(self.widen(x)))))
        return result


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each added to its input and then normalised."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config.d_model, config.n_heads, _self_attention(config))
        self.feed_forward = FeedForward(config)
        self.norm1 = nn.LayerNorm(config.d_model)
        self.norm2 = nn.LayerNorm(config.d_model)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, width] to the same shape."""
        x = self.norm1(x + self.dropout(self.attention(x, x)))
        result: Tensor = self.norm2(x + self.feed_forward(x))
        return result


class Distil(nn.Module):
    """Halves the length: circular convolution over three steps, batch norm, ELU, max-pool of stride 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolve = CircularConv(width, width)
        self.norm = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(kernel_size=(1, 3), stride=(1, 2), padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, width] to [batch, ceil(length / 2), width]."""
        image = self.convolve(x).transpose(1, 2).unsqueeze(2)  # one row of pixels: torch has kernels for that layout
        result: Tensor = self.pool(F.elu(self.norm(image))).squeeze(2).transpose(1, 2)
        return result


class InformerEncoder(nn.Module):
    """Encoder layers, with a distilling layer between each two where the config says so, and a last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.e_layers))
        self.distils = nn.ModuleList(Distil(config.d_model) for _ in range((config.e_layers - 1) * config.distil))
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, width] to [batch, remaining length, width]."""
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number < len(self.distils):
                x = self.distils[number](x)
        result: Tensor = self.norm(x)
        return result


class DecoderLayer(nn.Module):
    """Causal self-attention, full attention to the encoder, feed-forward, each added and then normalised."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config.d_model, config.n_heads, _self_attention(config), causal=True, mix=config.mix)
        self.cross = Attention(config.d_model, config.n_heads, _full(config))
        self.feed_forward = FeedForward(config)
        self.norm1 = nn.LayerNorm(config.d_model)
        self.norm2 = nn.LayerNorm(config.d_model)
        self.norm3 = nn.LayerNorm(config.d_model)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, memory: Tensor, steps: int) -> Tensor:
        """Decoder steps [batch, length, width] and encoder output [batch, remaining length, width].

        Only the last `steps` steps are worked out: after the self-attention no step looks at another.
        """
        x = self.norm1(x[:, -steps:] + self.dropout(self.attention(x, x)[:, -steps:]))
        x = self.norm2(x + self.dropout(self.cross(x, memory)))
        result: Tensor = self.norm3(x + self.feed_forward(x))
        return result


class InformerDecoder(nn.Module):
    """Decoder layers and a last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.d_layers))
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor, memory: Tensor, steps: int) -> Tensor:
        """Shapes as in `DecoderLayer`; the result is [batch, steps, width]."""
        for layer in self.layers[:-1]:
            x = layer(x, memory, x.shape[1])
        x = self.layers[-1](x, memory, steps)
        result: Tensor = self.norm(x)
        return result


def _full(config: ModelConfig) -> Sparsity:
    """Full attention. Dropping its weights, as the published code does, keeps torch off its fast CPU kernel."""
    return Sparsity(factor=None, dropout=config.dropout if config.faithful else 0.0)


def _self_attention(config: ModelConfig) -> Sparsity:
    return Sparsity(factor=config.factor, dropout=0.0) if config.attention == "prob" else _full(config)
