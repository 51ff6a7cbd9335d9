"""Reference lines on series whose right answer is known, and the published ETTh1 figures."""

import os
from pathlib import Path

import numpy as np
import pytest

from agentlab.config.workspace import Workspace
from agentlab.nas.config import DataConfig, SplitConfig
from agentlab.nas.data import load_series
from agentlab.nas.references import fit_ridge, reference_lines

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
    past, future = windows[:, :48], windows[:, 48:]
    padded = np.concatenate([past, np.sqrt(penalty) * np.eye(48)])
    expected = np.linalg.lstsq(padded, np.concatenate([future, np.zeros((48, 6))]), rcond=None)[0]
    assert np.allclose(weights, expected, atol=1e-6)


def test_only_the_target_is_forecast(make_series):
    both = make_series(channels=2)
    one = make_series(channels=2, targets=(1,))
    assert reference_lines(one, CONFIG)[1].test_mse != reference_lines(both, CONFIG)[1].test_mse


def test_a_reference_is_plain_data(make_series):
    record = reference_lines(make_series(), CONFIG)[0].as_dict()
    assert set(record) == {"name", "note", "val_mse", "val_mae", "test_mse", "test_mae"}


def ett_folder() -> Path:
    return Path(os.environ.get("AGENTLAB_ETT_DIR") or Path(__file__).parents[4] / "shared" / "data" / "ETT-small")


@pytest.mark.skipif(not (ett_folder() / "ETTh1.csv").is_file(), reason="ETTh1.csv is absent; set AGENTLAB_ETT_DIR")
def test_etth1_lines_are_the_known_ones(tmp_path):
    split = SplitConfig(train=8640, val=2880, test=2880)
    config = DataConfig(path=str(ett_folder() / "ETTh1.csv"), split=split)
    series = load_series(config, Workspace(root=tmp_path, cache=tmp_path))
    found = {line.name: round(line.test_mse, 4) for line in reference_lines(series, config)}
    assert found == {"mean": 1.11, "last": 1.222, "season": 0.4244, "ridge": 0.3095}
