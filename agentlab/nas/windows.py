"""Windows of a series, gathered by index on the device: no loader, no copies, no workers. And forecasts of some."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch  # noqa: TID253 - this module is only imported by code that trains
from numpy.typing import NDArray
from torch import Tensor  # noqa: TID253 - as above

from agentlab.errors import DataError
from agentlab.nas.config import TrialConfig
from agentlab.nas.informer.model import Informer
from agentlab.nas.series import Part, Series, window_starts
from agentlab.nas.time_features import Times


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """Windows of one step. `time` covers input and horizon; `future` holds the target channels only."""

    past: Tensor  # [batch, input, channels]
    time: Tensor  # [batch, input + horizon, time channels]
    future: Tensor  # [batch, horizon, targets]


class Windows:
    """A series on a device. Values and time features lie side by side, so a batch costs one gather."""

    def __init__(self, series: Series, trial: TrialConfig, device: str) -> None:
        self.series = series
        self.input_length = trial.data.input_length
        self.horizon = trial.data.horizon
        self._scored_at_once = trial.data.scored_at_once
        self._rows = torch.from_numpy(np.concatenate([series.values, series.time], axis=1)).to(device)
        self._offsets = torch.arange(self.input_length + self.horizon, device=device)
        self._targets = None if len(series.targets) == series.channels else torch.tensor(series.targets, device=device)

    def starts(self, part: Part, fraction: float = 1.0) -> Tensor:
        """First row of every window of a part, or of an evenly spread share of them. On the device.

        Raises:
            DataError: the part is too short for one window.
        """
        start_rows = window_starts(self.series.split, part, self.input_length, self.horizon)
        if not start_rows:
            raise DataError(
                f"{self.series.source}: the {part} split is too short for a window of input_length "
                f"{self.input_length} and horizon {self.horizon}.",
                hint="Reduce data.input_length or data.horizon.",
            )
        count = max(1, round(len(start_rows) * fraction))
        picked = torch.arange(count, dtype=torch.int64) * len(start_rows) // count + start_rows.start
        return picked.to(self._rows.device)

    def gather(self, starts: Tensor) -> WindowBatch:
        block = self._rows[starts[:, None] + self._offsets]
        values, time = block[..., : self.series.channels], block[..., self.series.channels :]
        future = values[:, self.input_length :]
        if self._targets is not None:
            future = future[..., self._targets]
        return WindowBatch(past=values[:, : self.input_length], time=time, future=future)

    def blocks(self, part: Part) -> Iterator[WindowBatch]:
        for starts in torch.split(self.starts(part), self._scored_at_once):
            yield self.gather(starts)


@dataclass(frozen=True, slots=True, eq=False)
class WindowForecast:
    """One window in original units."""

    dates: Times  # of the horizon
    past: NDArray[np.float64]  # [input, targets]
    predicted: NDArray[np.float64]  # [horizon, targets]
    future: NDArray[np.float64]  # [horizon, targets]


@torch.no_grad()
def predict_windows(model: Informer, windows: Windows, part: Part, picks: Sequence[int]) -> list[WindowForecast]:
    """Forecasts of the windows numbered `picks` of a part; negative numbers count from the end."""
    series, targets = windows.series, windows.series.targets
    starts = windows.starts(part)[list(picks)]
    batch = windows.gather(starts)
    predicted = model.eval()(batch.past, batch.time).cpu().numpy()
    past_values, future_values = batch.past.cpu().numpy()[..., list(targets)], batch.future.cpu().numpy()
    undo = series.scaler.undo
    return [
        WindowForecast(
            dates=series.dates[start + windows.input_length : start + windows.input_length + windows.horizon],
            past=undo(past_values[number], targets),
            predicted=undo(predicted[number], targets),
            future=undo(future_values[number], targets),
        )
        for number, start in enumerate(starts.tolist())
    ]
