"""Forecasts to look at: chosen windows of a part, in the units of the file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch  # noqa: TID253 - this module is only imported by code that has a trained network
from numpy.typing import NDArray

from agentlab.nas.informer.model import Informer
from agentlab.nas.series import Part
from agentlab.nas.time_features import Times
from agentlab.nas.windows import Windows

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """One window in original units: `past` [input, targets], `future` and `predicted` [horizon, targets].

    `dates` are those of the horizon.
    """

    dates: Times
    past: Floats
    predicted: Floats
    future: Floats


@torch.no_grad()
def predict_windows(model: Informer, windows: Windows, part: Part, picks: Sequence[int]) -> list[Forecast]:
    """Forecasts of the windows numbered `picks` of a part; negative numbers count from the end."""
    series, targets = windows.series, windows.series.targets
    starts = windows.starts(part)[list(picks)]
    batch = windows.gather(starts)
    predicted = model.eval()(batch.past, batch.time).cpu().numpy()
    past, future = batch.past.cpu().numpy()[..., list(targets)], batch.future.cpu().numpy()
    undo = series.scaler.undo
    return [
        Forecast(
            dates=series.dates[start + windows.input_length : start + windows.input_length + windows.horizon],
            past=undo(past[number], targets),
            predicted=undo(predicted[number], targets),
            future=undo(future[number], targets),
        )
        for number, start in enumerate(starts.tolist())
    ]
