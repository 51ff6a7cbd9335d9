"""Published test errors of the ETT benchmark, and when a study of ours may be set beside them.

Only figures, with their sources; the data sets themselves are not shipped. A figure is comparable when the file, the
rows of each part, the forecast columns and the horizon are the same; input length and training are the model's affair.
"""

from dataclasses import dataclass
from typing import Literal

from agentlab.nas.config import DataConfig
from agentlab.nas.series import Series, Split

_COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
_START = "2016-07-01T00:00:00"
_PARTS = (8640, 2880, 2880)  # hourly rows: 12, 4 and 4 months of 30 days

_MULTIVARIATE = "arXiv 2012.07436, table 2"
_UNIVARIATE = "arXiv 2012.07436, table 1"
_LINEAR = "arXiv 2205.13504, multivariate table"
_PATCHED = "arXiv 2211.14730, multivariate table"
_INVERTED = "arXiv 2310.06625, table of full results"

_FIVE_RUNS = "the paper's own figure, 5 runs; its published code gives other numbers"
_DROPPED = "test windows of the last incomplete batch left out: a difference below 0.005 means nothing"
_RERUN = f"trained again by the authors of DLinear; {_DROPPED}"
_SHORT = f"input length 96; {_DROPPED}"


@dataclass(frozen=True, slots=True)
class Published:
    """One model's test error on standardised data, as its source prints it."""

    model: str
    mse: float
    mae: float
    source: str
    note: str


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

# (file, features) -> horizon -> MSE, MAE
_INFORMER: dict[tuple[str, str], dict[int, tuple[float, float]]] = {
    ("ETTh1", "M"): {
        24: (0.577, 0.549),
        48: (0.685, 0.625),
        168: (0.931, 0.752),
        336: (1.128, 0.873),
        720: (1.215, 0.896),
    },
    ("ETTh2", "M"): {
        24: (0.720, 0.665),
        48: (1.457, 1.001),
        168: (3.489, 1.515),
        336: (2.723, 1.340),
        720: (3.467, 1.473),
    },
    ("ETTm1", "M"): {
        24: (0.323, 0.369),
        48: (0.494, 0.503),
        96: (0.678, 0.614),
        288: (1.056, 0.786),
        672: (1.192, 0.926),
    },
    ("ETTh1", "S"): {
        24: (0.098, 0.247),
        48: (0.158, 0.319),
        168: (0.183, 0.346),
        336: (0.222, 0.387),
        720: (0.269, 0.435),
    },
    ("ETTh2", "S"): {
        24: (0.093, 0.240),
        48: (0.155, 0.314),
        168: (0.232, 0.389),
        336: (0.263, 0.417),
        720: (0.277, 0.431),
    },
    ("ETTm1", "S"): {
        24: (0.030, 0.137),
        48: (0.069, 0.203),
        96: (0.194, 0.372),
        288: (0.401, 0.554),
        672: (0.512, 0.644),
    },
}

_LATER = (
    ("DLinear", _LINEAR, _DROPPED),
    ("PatchTST", _PATCHED, _DROPPED),
    ("FEDformer", _LINEAR, _RERUN),
    ("Informer (trained again)", _LINEAR, _RERUN),
)
# (file, horizon) -> MSE, MAE of each model of `_LATER`; all columns forecast all.
_LATER_ERRORS: dict[tuple[str, int], tuple[tuple[float, float], ...]] = {
    ("ETTh1", 96): ((0.375, 0.399), (0.370, 0.400), (0.376, 0.419), (0.865, 0.713)),
    ("ETTh1", 192): ((0.405, 0.416), (0.413, 0.429), (0.420, 0.448), (1.008, 0.792)),
    ("ETTh1", 336): ((0.439, 0.443), (0.422, 0.440), (0.459, 0.465), (1.107, 0.809)),
    ("ETTh1", 720): ((0.472, 0.490), (0.447, 0.468), (0.506, 0.507), (1.181, 0.865)),
    ("ETTh2", 96): ((0.289, 0.353), (0.274, 0.337), (0.346, 0.388), (3.755, 1.525)),
    ("ETTh2", 720): ((0.605, 0.551), (0.379, 0.422), (0.463, 0.474), (3.647, 1.625)),
    ("ETTm1", 96): ((0.299, 0.343), (0.293, 0.346), (0.379, 0.419), (0.672, 0.571)),
    ("ETTm1", 720): ((0.425, 0.421), (0.416, 0.420), (0.543, 0.490), (1.166, 0.823)),
}
_ITRANSFORMER = {
    ("ETTh1", 96): (0.386, 0.405),
    ("ETTh1", 192): (0.441, 0.436),
    ("ETTh1", 336): (0.487, 0.458),
    ("ETTh1", 720): (0.503, 0.491),
}


def published_rows(series: Series, config: DataConfig) -> list[Published]:
    """What others report for this file, split, kind of forecast and horizon, best error first.

    Empty unless the series is an untouched ETTh1, ETTh2 or ETTm1 in the standard split of 12, 4 and 4 months, all
    columns forecast all or OT forecasts itself, and somebody has published this horizon.
    """
    name = _benchmark(series, config.features)
    if name is None:
        return []
    rows = _informer(name, config.features, config.horizon)
    if config.features == "M":
        rows += _later(name, config.horizon)
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


def _informer(name: str, features: str, horizon: int) -> list[Published]:
    error = _INFORMER[name, features].get(horizon)
    source = _MULTIVARIATE if features == "M" else _UNIVARIATE
    return [Published("Informer (paper)", *error, source, _FIVE_RUNS)] if error else []


def _later(name: str, horizon: int) -> list[Published]:
    errors = _LATER_ERRORS.get((name, horizon), ())
    rows = [
        Published(model, *error, source, note)
        for (model, source, note), error in zip(_LATER, errors, strict=bool(errors))
    ]
    inverted = _ITRANSFORMER.get((name, horizon))
    return rows + ([Published("iTransformer", *inverted, _INVERTED, _SHORT)] if inverted else [])
