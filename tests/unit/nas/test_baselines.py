"""Reference lines on series whose right answer is known, and the published ETTh1 figures."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from agentlab.config.workspace import Workspace
from agentlab.nas.baselines import fit_ridge, reference_lines
from agentlab.nas.config import DataConfig, SplitConfig
from agentlab.nas.data import load_series
from agentlab.nas.series import Scaler, Series, Split
from agentlab.nas.time_features import Frequency, time_features

CONFIG = DataConfig(input_length=48, horizon=6)


def test_a_noiseless_daily_cycle_is_solved_by_season_and_ridge(make_series):
    lines = {line.name: line for line in reference_lines(make_series(noise=0.0), CONFIG)}
    assert list(lines) == ["mean", "last", "season", "ridge"]
    assert lines["season"].test_mse < 1e-10
    assert lines["ridge"].test_mse < 1e-3
    assert lines["mean"].test_mse == pytest.approx(1.0, abs=0.1)
    assert lines["last"].test_mse > 0.1


def test_ridge_weights_solve_the_penalised_least_squares(make_series):
    series = make_series(rows=200)
    weights, penalty = fit_ridge(series, CONFIG)
    rows = series.values.astype(float)
    starts = range(120 - 54 + 1)
    windows = np.concatenate([(rows[s : s + 54] - rows[s + 47]).T for s in starts])
    history, future = windows[:, :48], windows[:, 48:]
    padded = np.concatenate([history, np.sqrt(penalty) * np.eye(48)])
    expected = np.linalg.lstsq(padded, np.concatenate([future, np.zeros((48, 6))]), rcond=None)[0]
    assert np.allclose(weights, expected, atol=1e-6)


def test_only_the_target_is_forecast(make_series):
    both = make_series(channels=2)
    one = make_series(channels=2, targets=(1,))
    assert reference_lines(one, CONFIG)[1].test_mse != reference_lines(both, CONFIG)[1].test_mse


def test_a_reference_is_plain_data(make_series):
    record = reference_lines(make_series(), CONFIG)[0].model_dump()
    assert set(record) == {"name", "note", "val_mse", "val_mae", "test_mse", "test_mae"}


SEASONS = ["5min", "15min", "30min", "h", "2h", "D", "W", "MS"]


def periodic(step: str, targets: tuple[int, ...], horizon: int) -> Series:
    """Two columns that repeat after a season exactly, at any time step."""
    frequency = Frequency.parse(step)
    season = frequency.season
    rows = 5 * max(season, horizon) + 10 * horizon
    values = np.random.default_rng(3).normal(size=(season, 2))[np.arange(rows) % season]
    dates = np.datetime64("2001-01-01T00:00:00") + np.arange(rows) * np.timedelta64(1, "D")  # only rows count here
    cut = (rows * 6 // 10, rows * 8 // 10)
    split = Split(train=(0, cut[0]), val=cut, test=(cut[1], rows))
    scaler = Scaler.fit(values[: cut[0]])
    time = time_features(dates, frequency)
    return Series("s", ("a", "b"), targets, scaler.apply(values), time, dates, split, scaler, frequency)


@pytest.mark.parametrize("step", SEASONS)
@pytest.mark.parametrize(("targets", "horizon"), [((0, 1), 1), ((1,), 30)])
def test_what_repeats_after_a_season_is_solved_by_the_season_line(step, targets, horizon):
    series = periodic(step, targets, horizon)
    lines = {line.name: line for line in reference_lines(series, DataConfig(input_length=24, horizon=horizon))}
    season = lines["season"]
    assert f"{series.frequency.season} steps earlier ({step})" in season.note
    assert max(season.val_mse, season.val_mae, season.test_mse, season.test_mae) < 1e-9
    assert lines["last"].test_mse > 0.1


@pytest.mark.parametrize("horizon", [1, 720])
@pytest.mark.parametrize("targets", [(0,), (0, 1)])
def test_horizons_from_one_step_to_a_month_of_hours(make_series, horizon, targets):
    series = make_series(rows=4000, targets=targets, noise=0.0)
    lines = {line.name: line for line in reference_lines(series, DataConfig(input_length=48, horizon=horizon))}
    assert list(lines) == ["mean", "last", "season", "ridge"]
    assert lines["season"].test_mse < 1e-10
    assert lines["ridge"].test_mse < 1e-3


def test_ridge_works_with_more_inputs_than_windows(make_series):
    series = make_series(rows=400, channels=1, noise=0.05)
    config = DataConfig(input_length=200, horizon=24)  # 17 training windows
    weights, _ = fit_ridge(series, config)
    assert weights.shape == (200, 24)
    ridge = reference_lines(series, config)[-1]
    assert np.isfinite([ridge.val_mse, ridge.test_mse]).all()
    assert ridge.test_mse < 0.3


def test_memory_does_not_grow_with_columns_and_horizon(make_series):
    series = make_series(rows=9000, channels=16)
    tracemalloc.start()
    reference_lines(series, DataConfig(input_length=24, horizon=720))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 128 << 20  # all training windows at once would take 400 MiB an array


def ett_folder() -> Path:
    return Path(os.environ.get("AGENTLAB_ETT_DIR") or Path(__file__).parents[4] / "shared" / "data" / "ETT-small")


@pytest.mark.skipif(not (ett_folder() / "ETTh1.csv").is_file(), reason="ETTh1.csv is absent; set AGENTLAB_ETT_DIR")
def test_etth1_lines_are_the_known_ones(tmp_path):
    split = SplitConfig(train=8640, val=2880, test=2880)
    config = DataConfig(path=str(ett_folder() / "ETTh1.csv"), split=split)
    series = load_series(config, Workspace(root=tmp_path, cache=tmp_path))
    errors = {line.name: round(line.test_mse, 4) for line in reference_lines(series, config)}
    assert errors == {"mean": 1.11, "last": 1.222, "season": 0.4244, "ridge": 0.3095}
