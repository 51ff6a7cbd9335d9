"""Published test errors of the ETT benchmark, and when a study of ours may be set beside them.

Only figures, with their sources; the data sets themselves are not shipped. A figure is comparable when the file, the
rows of each part, the forecast columns and the horizon are the same; input length and training are the model's affair.
"""

import csv
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from agentlab.nas.config import DataConfig
from agentlab.nas.result import PublishedRow
from agentlab.nas.series import Series, Split

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


_FILES = (
    _File("ETTh1", 60, 17_420, 30.531),
    _File("ETTh2", 60, 17_420, 38.662),
    _File("ETTm1", 15, 69_680, 30.531),
)


def published_rows(series: Series, config: DataConfig) -> list[PublishedRow]:
    """What others report for this file, split, kind of forecast and horizon, best error first.

    Empty unless the series is an untouched ETTh1, ETTh2 or ETTm1 in the standard split of 12, 4 and 4 months, all
    columns forecast all or OT forecasts itself, and somebody has published this horizon.
    """
    wanted = (_benchmark(series, config.features), config.features, str(config.horizon))
    text = (files("agentlab.nas") / "embedded" / "published.csv").read_text(encoding="utf-8")
    rows = [
        PublishedRow.model_validate({name: row[name] for name in PublishedRow.model_fields})
        for row in csv.DictReader(text.splitlines())
        if (row["file"], row["features"], row["horizon"]) == wanted
    ]
    return sorted(rows, key=lambda row: row.mse)


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
