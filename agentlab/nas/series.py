"""The series as a model sees it: scaled values, time features, and the rows of each part."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agentlab.nas.time_features import Frequency, Times

Part = Literal["train", "val", "test"]
Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Split:
    """Half-open row ranges of forecasts. Validation and test inputs reach back into the rows before theirs."""

    train: tuple[int, int]
    val: tuple[int, int]
    test: tuple[int, int]

    def rows(self, part: Part) -> tuple[int, int]:
        """First row and one past the last row that forecasts of this part fall on."""
        return {"train": self.train, "val": self.val, "test": self.test}[part]


@dataclass(frozen=True, slots=True)
class Scaler:
    """Standardisation by the training rows' mean and population standard deviation, per channel."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def fit(cls, rows: NDArray[np.float64]) -> "Scaler":
        return cls(mean=rows.mean(axis=0), std=rows.std(axis=0))

    def apply(self, values: NDArray[np.float64]) -> Rows:
        return ((values - self.mean) / self.std).astype(np.float32)

    def undo(self, scaled: NDArray[np.floating], channels: tuple[int, ...]) -> NDArray[np.float64]:
        """Scaled values [..., len(channels)] of these channels to original units."""
        index = list(channels)
        return np.asarray(scaled * self.std[index] + self.mean[index], dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A loaded series: `values` [rows, channels] scaled, `time` [rows, k], `targets` the numbers of forecast columns.

    `fingerprint` is the SHA-256 of what a trial's result depends on: values, dates, names, targets and split.
    """

    source: str
    names: tuple[str, ...]
    targets: tuple[int, ...]
    values: Rows
    time: Rows
    dates: Times
    split: Split
    scaler: Scaler
    frequency: Frequency
    notes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        return int(self.values.shape[1])

    @property
    def time_channels(self) -> int:
        return int(self.time.shape[1])

    @property
    def target_names(self) -> tuple[str, ...]:
        return tuple(self.names[index] for index in self.targets)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for array in (self.values, self.dates.astype("datetime64[s]").astype(np.int64)):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(repr((self.names, self.targets, self.split, self.frequency)).encode())
        return digest.hexdigest()


def window_starts(split: Split, part: Part, input_length: int, horizon: int) -> range:
    """First input row of every window of a part. Every forecast lies wholly inside the part.

    Training windows lie wholly inside the training rows; validation and test windows start one input length earlier.
    Empty when the part is too short.
    """
    first, end = split.rows(part)
    earliest = first if part == "train" else first - input_length
    return range(max(earliest, 0), end - horizon - input_length + 1)
