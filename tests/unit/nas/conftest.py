"""A small synthetic series with a daily cycle: no file, no licence, milliseconds to build."""

from collections.abc import Callable

import numpy as np
import pytest

from agentlab.nas.series import Scaler, Series, Split
from agentlab.nas.time_features import Frequency, time_features


@pytest.fixture(scope="session")
def make_series() -> Callable[..., Series]:
    def make(rows: int = 400, channels: int = 2, targets: tuple[int, ...] | None = None, noise: float = 0.1) -> Series:
        rng = np.random.default_rng(7)
        hours = np.arange(rows)
        phases = np.arange(channels)
        values = np.sin(2 * np.pi * hours[:, None] / 24 + phases) + noise * rng.standard_normal((rows, channels))
        dates = np.datetime64("2024-01-01T00:00:00") + hours * np.timedelta64(3600, "s")
        split = Split(train=(0, rows * 6 // 10), val=(rows * 6 // 10, rows * 8 // 10), test=(rows * 8 // 10, rows))
        scaler = Scaler.fit(values[: split.train[1]])
        frequency = Frequency(60)
        return Series(
            source="synthetic",
            names=tuple(f"c{index}" for index in range(channels)),
            targets=tuple(range(channels)) if targets is None else targets,
            values=scaler.apply(values),
            time=time_features(dates, frequency),
            dates=dates,
            split=split,
            scaler=scaler,
            frequency=frequency,
        )

    return make
