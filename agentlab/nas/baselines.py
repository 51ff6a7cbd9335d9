"""What stands next to every result: cheap forecasts that any model has to beat, and published errors of ETT.

Of the benchmark there are only figures, with their sources; the data sets themselves are not shipped. A figure is
comparable when the file, the rows of each part, the forecast columns and the horizon are the same; input length and
training are the model's affair.
"""

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agentlab.nas.config import DataConfig
from agentlab.nas.result import PublishedRow, ReferenceRow
from agentlab.nas.series import Part, Series, Split, window_starts

_PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)
_BLOCK = 1 << 21  # numbers at once: 16 MiB an array, whatever the horizon and the number of columns

Floats = NDArray[np.float64]
# (all scaled rows of the targets, first forecast row of each window) -> [windows, horizon, targets]
Forecast = Callable[[Floats, NDArray[np.int64]], Floats]


def reference_lines(series: Series, config: DataConfig) -> list[ReferenceRow]:
    """Errors of training mean, last value, last season and ridge regression on scaled data, in this order.

    The season line is left out where the series has no season of more than one step, or validation begins before one.
    """
    horizon, season = config.horizon, series.frequency.season
    steps = np.arange(horizon)
    weights, penalty = fit_ridge(series, config)
    back = np.arange(-config.input_length, 0)

    def mean(rows: Floats, origins: NDArray[np.int64]) -> Floats:
        return np.zeros((len(origins), horizon, rows.shape[1]))

    def last(rows: Floats, origins: NDArray[np.int64]) -> Floats:
        return np.repeat(rows[origins - 1][:, None], horizon, axis=1)

    def seasonal(rows: Floats, origins: NDArray[np.int64]) -> Floats:
        return np.asarray(rows[origins[:, None] - season + steps % season])

    def ridge(rows: Floats, origins: NDArray[np.int64]) -> Floats:
        anchor = rows[origins - 1][:, None]
        change: Floats = np.einsum("nlc,lh->nhc", rows[origins[:, None] + back] - anchor, weights, optimize=True)
        return change + anchor

    lines: list[tuple[str, str, Forecast]] = [
        ("mean", "mean of the training split", mean),
        ("last", "last value repeated", last),
        ("season", f"value {season} steps earlier ({series.frequency})", seasonal),
        (
            "ridge",
            f"linear in the last {config.input_length} values, relative to the last; ridge penalty {penalty:g}",
            ridge,
        ),
    ]
    usable_lines = [line for line in lines if line[0] != "season" or 1 < season <= series.split.val[0]]
    return [
        ReferenceRow(
            name=name, note=note, **_score(series, config, "val", forecast), **_score(series, config, "test", forecast)
        )
        for name, note, forecast in usable_lines
    ]


def fit_ridge(series: Series, config: DataConfig) -> tuple[Floats, float]:
    """Closed-form weights [input, horizon], one set for all channels, and the penalty that validation prefers.

    Input and output are centred on the last value of the window, so the weights say how to leave it. They are fitted
    to the training part by the normal equations in float64.
    """
    gram, cross = _moments(series, config, "train")
    val_gram, val_cross = _moments(series, config, "val")
    best: tuple[float, Floats, float] | None = None
    for penalty in _PENALTIES:
        weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), cross).astype(np.float64)
        # Squared error on validation less the constant sum of the squared targets.
        error = float(np.sum(weights * (val_gram @ weights)) - 2 * np.sum(weights * val_cross))
        if best is None or error < best[0]:
            best = (error, weights, penalty)
    assert best is not None
    return best[1], best[2]


def _moments(series: Series, config: DataConfig, part: Part) -> tuple[Floats, Floats]:
    """Sums of products over the windows of a part: input with input, and input with horizon."""
    gram = np.zeros((config.input_length, config.input_length))
    cross = np.zeros((config.input_length, config.horizon))
    for input_rows, future in _centred_windows(series, config, part):
        gram += input_rows.T @ input_rows
        cross += input_rows.T @ future
    return gram, cross


def _rows(series: Series) -> Floats:
    return series.values[:, list(series.targets)].astype(np.float64)


def _blocks(series: Series, config: DataConfig, part: Part) -> Iterator[NDArray[np.int64]]:
    """First forecast rows of every window of a part, as many at once as bounded memory allows."""
    starts = np.asarray(window_starts(series.split, part, config.input_length, config.horizon))
    count = max(1, _BLOCK // (len(series.targets) * (config.input_length + config.horizon)))
    for first in range(0, len(starts), count):
        yield starts[first : first + count] + config.input_length


def _centred_windows(series: Series, config: DataConfig, part: Part) -> Iterator[tuple[Floats, Floats]]:
    """Windows of all channels, one per row and less their last value: [rows, input] and [rows, horizon]."""
    rows, length = _rows(series), config.input_length
    offsets = np.arange(-length, config.horizon)
    for origins in _blocks(series, config, part):
        block = rows[origins[:, None] + offsets] - rows[origins - 1][:, None]
        flat = block.transpose(0, 2, 1).reshape(-1, len(offsets))
        yield flat[:, :length], flat[:, length:]


def _score(series: Series, config: DataConfig, part: Part, forecast: Forecast) -> dict[str, float]:
    """MSE and MAE over all windows, steps and targets of a part."""
    rows, steps = _rows(series), np.arange(config.horizon)
    squared = absolute = 0.0
    count = 0
    for origins in _blocks(series, config, part):
        error = forecast(rows, origins) - rows[origins[:, None] + steps]
        squared += float(np.square(error).sum())
        absolute += float(np.abs(error).sum())
        count += error.size
    return {f"{part}_mse": squared / count, f"{part}_mae": absolute / count}


_COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
_START = "2016-07-01T00:00:00"
_PARTS = (8640, 2880, 2880)  # hourly rows: 12, 4 and 4 months of 30 days


@dataclass(frozen=True, slots=True)
class _File:
    """What tells one file of the benchmark from all others: grid, length, and its oil temperature at `_START`."""

    name: str
    minutes: int
    rows: int
    first_ot: float


_FILES = (_File("ETTh1", 60, 17_420, 30.531), _File("ETTh2", 60, 17_420, 38.662), _File("ETTm1", 15, 69_680, 30.531))


def published_rows(series: Series, config: DataConfig) -> list[PublishedRow]:
    """What others report for this file, split, kind of forecast and horizon, best error first.

    Empty unless the series is an untouched ETTh1, ETTh2 or ETTm1 in the standard split of 12, 4 and 4 months, all
    columns forecast all or OT forecasts itself, and somebody has published this horizon.
    """
    published_key = (_benchmark(series, config.features), config.features, str(config.horizon))
    text = (files("agentlab.nas") / "embedded" / "published.csv").read_text(encoding="utf-8")
    csv_rows = csv.DictReader(text.splitlines())
    rows = [_published_row(row) for row in csv_rows if (row["file"], row["features"], row["horizon"]) == published_key]
    return sorted(rows, key=lambda row: row.mse)


def _published_row(csv_row: Mapping[str, str]) -> PublishedRow:
    return PublishedRow.model_validate({name: csv_row[name] for name in PublishedRow.model_fields})


def _benchmark(series: Series, features: Literal["M", "S", "MS"]) -> str | None:
    """The file that this series is, cut in the standard way; None for anything else."""
    columns = {"M": _COLUMNS, "S": _COLUMNS[-1:]}.get(features)
    if series.names != columns or series.notes or str(series.dates[0]) != _START:  # notes: cells were filled in
        return None
    first_ot = float(series.scaler.undo(series.values[0, -1:], (series.channels - 1,))[0])
    for file in _FILES:
        grid = (series.frequency.minutes, len(series.values)) == (file.minutes, file.rows)
        if grid and abs(first_ot - file.first_ot) < 5e-3 and series.split == _standard_split(60 // file.minutes):
            return file.name
    return None


def _standard_split(per_hour: int) -> Split:
    train, val, test = (rows * per_hour for rows in _PARTS)
    return Split(train=(0, train), val=(train, train + val), test=(train + val, train + val + test))
