"""The whole network: embed, encode, decode all steps of the horizon at once."""

from dataclasses import dataclass

import torch  # noqa: TID253 - network modules are only imported to build a network
import torch.nn.functional as F  # noqa: N812, TID253 - the name everybody uses
from torch import Tensor, nn  # noqa: TID253 - as above

from agentlab.nas.config import TrialConfig
from agentlab.nas.informer.layers import Embedding, InformerDecoder, InformerEncoder

_EPSILON = 1e-5  # added to a window's variance, as every normalisation does


@dataclass(frozen=True, slots=True)
class InformerShape:
    """What of a series decides the network's shape. `targets` numbers the forecast channels."""

    channels: int
    time_channels: int
    targets: tuple[int, ...]


class WindowNorm:
    """Standardises a window [batch, length, channels] by its own mean and deviation, and undoes it."""

    def __init__(self, window: Tensor) -> None:
        self.mean = window.mean(dim=1, keepdim=True)
        self.std = (window.var(dim=1, keepdim=True, correction=0) + _EPSILON).sqrt()

    def apply(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std

    def undo(self, forecast: Tensor, channels: list[int]) -> Tensor:
        """Forecast [batch, horizon, len(channels)] back to the scale of the series."""
        return forecast * self.std[..., channels] + self.mean[..., channels]


class Shortcut(nn.Module):
    """Last value + linear map over time of the window centred on it, shared by all channels.

    It starts at zero, so an untrained network already repeats the last value; alone it is the ridge reference line.
    """

    def __init__(self, input_length: int, horizon: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(horizon, input_length))

    def forward(self, window: Tensor) -> Tensor:
        """[batch, input, targets] to [batch, horizon, targets]."""
        last = window[:, -1:]
        return F.linear((window - last).transpose(1, 2), self.weight).transpose(1, 2) + last


class Informer(nn.Module):
    """Encoder-decoder that forecasts the horizon in one pass from `label_length` known steps and zeros."""

    def __init__(self, trial: TrialConfig, shape: InformerShape) -> None:
        super().__init__()
        model, data = trial.model, trial.data
        self.label_length, self.horizon = data.label_length, data.horizon
        self.targets = list(shape.targets)
        self.normalize = model.normalize
        decoded = data.label_length + data.horizon
        self.encoder_embedding = Embedding(
            shape.channels, shape.time_channels, model.d_model, data.input_length, model.dropout
        )
        self.decoder_embedding = Embedding(shape.channels, shape.time_channels, model.d_model, decoded, model.dropout)
        self.encoder = InformerEncoder(model)
        self.decoder = InformerDecoder(model)
        self.projection = nn.Linear(model.d_model, len(shape.targets))
        self.shortcut = Shortcut(data.input_length, data.horizon) if model.shortcut else None
        if self.shortcut is not None:
            nn.init.zeros_(self.projection.weight)
            nn.init.zeros_(self.projection.bias)

    def forward(self, window: Tensor, time: Tensor) -> Tensor:
        """Scaled [batch, input, channels], time features [batch, input + horizon, k] to [batch, horizon, targets]."""
        norm = WindowNorm(window) if self.normalize else None
        if norm is not None:
            window = norm.apply(window)
        length = window.shape[1]
        memory = self.encoder(self.encoder_embedding(window, time[:, :length]))
        start = F.pad(window[:, length - self.label_length :], (0, 0, 0, self.horizon))
        embedded = self.decoder_embedding(start, time[:, length - self.label_length :])
        forecast: Tensor = self.projection(self.decoder(embedded, memory, self.horizon))
        if self.shortcut is not None:
            forecast = forecast + self.shortcut(window[..., self.targets])
        return forecast if norm is None else norm.undo(forecast, self.targets)
