"""Published errors appear beside a study only when they measure the same thing."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentlab.config.workspace import Workspace
from agentlab.nas.baselines import published_rows
from agentlab.nas.config import DataConfig, SplitConfig
from agentlab.nas.data import load_series
from agentlab.nas.series import Scaler, Series, Split
from agentlab.nas.time_features import Frequency, Times

NAMES = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
HOURLY = SplitConfig(train=8640, val=2880, test=2880)


def benchmark(first_ot: float, features: str = "M", horizon: int = 24, minutes: int = 60) -> tuple[Series, DataConfig]:
    """A series with the outside of a benchmark file and noise inside."""
    per_hour = 60 // minutes
    rows, names = 17420 * per_hour, NAMES if features != "S" else ("OT",)
    values = np.random.default_rng(0).normal(15, 8, size=(rows, len(names)))
    values[0, -1] = first_ot
    ends = [8640 * per_hour, 11520 * per_hour, 14400 * per_hour]
    dates: Times = np.datetime64("2016-07-01T00:00:00") + np.arange(rows) * np.timedelta64(minutes * 60, "s")
    scaler = Scaler.fit(values[: ends[0]])
    series = Series(
        source="any name.csv",
        names=names,
        targets=tuple(range(len(names))) if features == "M" else (len(names) - 1,),
        values=scaler.apply(values),
        time=np.zeros((rows, 1), dtype=np.float32),
        dates=dates,
        split=Split(train=(0, ends[0]), val=(ends[0], ends[1]), test=(ends[1], ends[2])),
        scaler=scaler,
        frequency=Frequency(minutes),
    )
    return series, DataConfig(features=features, horizon=horizon)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first_ot", "features", "minutes", "horizon", "expected"),
    [
        (30.531, "M", 60, 24, {"Informer (paper)": (0.577, 0.549)}),
        (38.662, "M", 60, 24, {"Informer (paper)": (0.720, 0.665)}),
        (30.531, "S", 60, 720, {"Informer (paper)": (0.269, 0.435)}),
        (38.662, "S", 60, 168, {"Informer (paper)": (0.232, 0.389)}),
        (30.531, "S", 15, 96, {"Informer (paper)": (0.194, 0.372)}),
        (30.531, "S", 60, 96, {}),
        (
            30.531,
            "M",
            15,
            96,
            {
                "PatchTST": (0.293, 0.346),
                "DLinear": (0.299, 0.343),
                "FEDformer": (0.379, 0.419),
                "Informer (trained again)": (0.672, 0.571),
                "Informer (paper)": (0.678, 0.614),
            },
        ),
        (
            30.531,
            "M",
            60,
            336,
            {
                "PatchTST": (0.422, 0.440),
                "DLinear": (0.439, 0.443),
                "FEDformer": (0.459, 0.465),
                "iTransformer": (0.487, 0.458),
                "Informer (trained again)": (1.107, 0.809),
                "Informer (paper)": (1.128, 0.873),
            },
        ),
    ],
)
def test_the_published_errors_of_a_file_and_horizon_best_first(first_ot, features, minutes, horizon, expected):
    rows = published_rows(*benchmark(first_ot, features, horizon, minutes))
    assert [(row.model, (row.mse, row.mae)) for row in rows] == list(expected.items())
    assert all(row.source.startswith("arXiv ") and row.note for row in rows)


def test_the_source_tells_the_table_of_one_column_from_that_of_seven():
    assert published_rows(*benchmark(30.531, "M"))[0].source == "arXiv 2012.07436, table 2"
    assert published_rows(*benchmark(30.531, "S"))[0].source == "arXiv 2012.07436, table 1"


def cut(series: Series) -> Series:
    return replace(series, values=series.values[:-1], dates=series.dates[:-1])


@pytest.mark.parametrize(
    "change",
    [
        cut,
        lambda s: replace(s, names=(*reversed(s.names),)),
        lambda s: replace(s, names=(*s.names[:-1], "T")),
        lambda s: replace(s, dates=s.dates + np.timedelta64(1, "h")),
        lambda s: replace(s, split=Split(train=(0, 10452), val=(10452, 13936), test=(13936, 17420))),
        lambda s: replace(s, frequency=Frequency(30)),
        lambda s: replace(s, notes=("3 missing rows were filled",)),
        lambda s: replace(s, scaler=Scaler(s.scaler.mean + 1, s.scaler.std)),
    ],
    ids=["a row short", "other order", "other column", "later", "other split", "other step", "filled", "other values"],
)
def test_what_is_not_the_benchmark_has_no_published_error(change: Callable[[Series], Series]):
    series, config = benchmark(30.531)
    assert published_rows(series, config)
    assert published_rows(change(series), config) == []


def test_a_horizon_nobody_reports_and_the_mixed_task_have_none():
    assert published_rows(*benchmark(30.531, horizon=25)) == []
    assert published_rows(*benchmark(30.531, features="MS")) == []


def test_the_second_quarter_hourly_file_is_not_taken_for_the_first():
    assert published_rows(*benchmark(38.662, minutes=15)) == []


def test_the_weather_of_new_york_is_not_the_benchmark(make_series):
    assert published_rows(make_series(), DataConfig()) == []


def ett_folder() -> Path:
    return Path(os.environ.get("AGENTLAB_ETT_DIR") or Path(__file__).parents[4] / "shared" / "data" / "ETT-small")


@pytest.mark.skipif(not (ett_folder() / "ETTh2.csv").is_file(), reason="the ETT files are absent; set AGENTLAB_ETT_DIR")
@pytest.mark.parametrize("features", ["M", "S"])
def test_the_real_files_are_recognised_whatever_their_name(tmp_path, features):
    mses = {}
    for name in ("ETTh1", "ETTh2"):
        copy = tmp_path / f"series-{name[-1]}.csv"
        copy.symlink_to(ett_folder() / f"{name}.csv")
        config = DataConfig(path=str(copy), split=HOURLY, features=features, target="OT")
        series = load_series(config, Workspace(root=tmp_path, cache=tmp_path))
        mses[name] = [row.mse for row in published_rows(series, config)]
    expected = {"M": {"ETTh1": [0.577], "ETTh2": [0.720]}, "S": {"ETTh1": [0.098], "ETTh2": [0.093]}}
    assert mses == expected[features]
