"""From a file to forecasts with dates, at each kind of time step, feature mode and horizon."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentlab.config.workspace import Workspace
from agentlab.nas.baselines import reference_lines
from agentlab.nas.config import TrialConfig
from agentlab.nas.data import load_series
from agentlab.nas.time_features import Times
from agentlab.nas.training import evaluate, restore, train
from agentlab.nas.windows import Windows, predict_windows
from cli.main import main

SMALL = {"d_model": 8, "n_heads": 1, "e_layers": 1, "ff_multiplier": 1}
NAMES = ("Absatz Nord", "Absatz Süd", "Temperatur (°C)")


def write(path: Path, dates: Times, season: int) -> None:
    """Three columns with a season, a trend and noise, as a shop would export them."""
    rng = np.random.default_rng(5)
    steps = np.arange(len(dates))[:, None]
    level = (
        100 + 0.01 * steps + 20 * np.sin(2 * np.pi * steps / season + np.arange(3)) + rng.normal(size=(len(dates), 3))
    )
    lines = [f"{date},{a:.2f},{b:.2f},{c:.2f}" for date, (a, b, c) in zip(dates, level, strict=True)]
    path.write_text("\n".join([",".join(("date", *NAMES)), *lines]) + "\n", encoding="utf-8")


def every(step: str, count: int, start: str = "2021-01-01T00:00") -> Times:
    """Dates `15m`, `1h`, `1D` or `1M` apart."""
    unit = step[-1]
    first = np.array([start], dtype=f"datetime64[{unit}]").astype(np.int64)
    dates: Times = (first + int(step[:-1]) * np.arange(count)).astype(f"datetime64[{unit}]")
    return dates if unit in "mh" else dates.astype("datetime64[D]")


@pytest.mark.parametrize(
    ("step", "rows", "data", "frequency", "targets", "features"),
    [
        ("15m", 1500, {"features": "S", "horizon": 8, "input_length": 96}, "15min", NAMES[2:], 5),
        ("1D", 900, {"features": "MS", "target": NAMES[0], "horizon": 30, "input_length": 60}, "D", NAMES[:1], 3),
        ("1M", 240, {"features": "M", "horizon": 12, "input_length": 24}, "MS", NAMES, 1),
        ("1h", 4200, {"features": "M", "horizon": 720, "input_length": 96, "label_share": 0.25}, "h", NAMES, 4),
        ("1h", 600, {"features": "MS", "horizon": 1, "input_length": 24}, "h", NAMES[2:], 4),
    ],
    ids=["S at 15min", "MS a month of days", "M a year of months", "720 hours", "one hour"],
)
def test_a_series_is_trained_and_forecast_on_its_own_dates(
    tmp_path: Path, step: str, rows: int, data: dict[str, Any], frequency: str, targets: tuple[str, ...], features: int
) -> None:
    dates = every(step, rows)
    write(tmp_path / "shop.csv", dates, season=12)
    training = {"epochs": 1, "train_fraction": 0.1, "optimizer_params": {"lr": 1e-3}}
    trial = TrialConfig.model_validate(
        {"data": {"path": "shop.csv", "batch_size": 16, **data}, "model": SMALL, "training": training}
    )
    series = load_series(trial.data, Workspace(root=tmp_path, cache=tmp_path))
    assert (str(series.frequency), series.target_names, series.time_channels) == (frequency, targets, features)

    trained = train(trial, series, seed=1)
    model, windows = restore(trial, series, trained.state_dict), Windows(series, trial, "cpu")
    scored = evaluate(model, windows, "test")
    assert len(scored.mse_by_step) == trial.data.horizon
    assert len(scored.mse_by_channel) == len(targets)
    assert np.isfinite([trained.val_mse, scored.mse, scored.mae, *scored.mse_by_step, *scored.mse_by_channel]).all()

    last = predict_windows(model, windows, "test", [-1])[0]
    horizon = trial.data.horizon
    assert last.dates.tolist() == dates[-horizon:].astype("datetime64[s]").tolist()
    assert last.predicted.shape == last.future.shape == (horizon, len(targets))
    assert np.isfinite(last.predicted).all()
    column = NAMES.index(targets[-1]) + 1
    written = [float(line.split(",")[column]) for line in (tmp_path / "shop.csv").read_text("utf-8").splitlines()[1:]]
    assert np.allclose(last.future[:, -1], written[-horizon:], atol=1e-2)

    lines = {line.name: line for line in reference_lines(series, trial.data)}
    assert list(lines)[-1] == "ridge"
    assert np.isfinite([line.test_mse for line in lines.values()]).all()


def test_a_study_of_a_series_with_holes_says_what_was_filled(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dates = every("1D", 400)
    write(workspace / "shop.csv", dates, season=7)
    lines = (workspace / "shop.csv").read_text("utf-8").splitlines()
    (workspace / "shop.csv").write_text(
        "\n".join(lines[:101] + lines[108:]) + "\n", encoding="utf-8"
    )  # a week is absent
    words = ["nas", "demo", "--json", "-q", "--data", "shop.csv", "--set=llm=none"]
    tiny = ["--set=data.gaps=interpolate", "--set=training.train_fraction=0.1", "--horizon", "7"]
    assert main([*words, *tiny, "--dry-run"]) == 0
    description = json.loads(capsys.readouterr().out)["result"]["series"]
    assert "shop.csv: 400 rows, 3 columns" in description
    assert "one row per D, 2021-01-01T00:00 to 2022-02-04T00:00" in description
    assert "Filled with linear interpolation: 7 missing rows;" in description
    assert "the longest gap is 7 steps, from 2021-04-11T00:00:00 to 2021-04-17T00:00:00" in description
    assert "looks ahead" in description
    assert main([*words, *tiny, "--max-iterations", "1"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert description in result["series"]
    assert np.isfinite([result["winner"][key] for key in ("val_mse", "test_mse", "test_mae")]).all()
