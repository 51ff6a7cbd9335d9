"""One training: its folder is complete before its result is told, and a kill in it costs at most an epoch."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentlab.errors import ConfigError, Interrupted, StorageError
from agentlab.nas.config import TrialConfig
from agentlab.nas.objective import (
    CHECKPOINT_FILE,
    HISTORY_FILE,
    WEIGHTS_FILE,
    InformerObjective,
    stored_curve,
    stored_weights,
)
from agentlab.nas.series import Series
from agentlab.nas.training import evaluate, restore
from agentlab.nas.windows import Windows
from agentlab.runs.folder import Folder
from agentlab.search.types import TrialResult
from agentlab.study.state import StudyCandidate

BASE = TrialConfig.model_validate(
    {
        "data": {"input_length": 8, "horizon": 2, "batch_size": 64},
        "model": {"d_model": 4, "n_heads": 1, "e_layers": 1},
        "training": {"epochs": 3, "patience": 3, "optimizer_params": {"lr": 0.01}},
    }
)
FILES = {"config_used.yaml", "metrics.json", HISTORY_FILE, "learning_curve.svg", WEIGHTS_FILE}
Told = list[tuple[str, str, dict[str, Any]]]


@pytest.fixture
def trials(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "trials")


@pytest.fixture
def series(make_series: Callable[..., Series]) -> Series:
    return make_series(rows=200)


def objective(
    trials: Folder, series: Series, log: Told | None = None, before_step: Callable[[], None] = lambda: None
) -> InformerObjective:
    events: Told = [] if log is None else log

    def report(type: str, id: str, data: dict[str, Any]) -> None:  # noqa: A002 - the event's fields
        events.append((type, id, data))

    return InformerObjective(BASE, series, trials, "cpu", report, before_step)


def run(training: InformerObjective, name: str = "run_0000", seed: int = 1, **params: Any) -> TrialResult:
    return training([StudyCandidate(name, 0, params, seed=seed)])[0]


def untimed(result: TrialResult) -> dict[str, Any]:
    return {"value": result.value, **{k: v for k, v in result.metrics.items() if k != "seconds"}}


def test_a_training_leaves_its_folder_whole(trials: Folder, series: Series) -> None:
    events: Told = []
    result = run(objective(trials, series, events), **{"model.d_model": 8})
    folder = trials.path / "run_0000"
    assert {path.name for path in folder.iterdir()} == FILES
    assert yaml.safe_load((folder / "config_used.yaml").read_text())["model"]["d_model"] == 8
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == {"val_mse": result.value, **result.metrics}
    assert not [name for name in metrics if "test" in name]
    assert [(type_, name) for type_, name, _ in events] == [("trial.epoch", "run_0000")] * 3
    assert [data["epoch"] for _, _, data in events] == [1, 2, 3]
    assert result.value == min(data["val_mse"] for _, _, data in events)


def test_the_stored_weights_are_those_that_were_measured(trials: Folder, series: Series) -> None:
    result = run(objective(trials, series), "run_0007-f1")
    model = restore(BASE, series, stored_weights(trials, "run_0007-f1"), "cpu")
    assert evaluate(model, Windows(series, BASE, "cpu"), "val").mse == pytest.approx(result.value, rel=1e-6)
    curve = stored_curve(trials, "run_0007-f1")
    assert curve is not None
    assert curve.run_id == "run_0007-f1"
    assert min(curve.val_mse) == result.value


def test_the_seed_decides(trials: Folder, series: Series) -> None:
    training = objective(trials, series)
    first, same_seed, new_seed = (run(training, f"run_000{n}", seed).value for n, seed in enumerate((1, 1, 2)))
    assert first == same_seed
    assert first != new_seed


def test_a_folder_that_was_removed_has_no_curve(trials: Folder, series: Series) -> None:
    run(objective(trials, series))
    shutil.rmtree(trials.path / "run_0000")
    assert stored_curve(trials, "run_0000") is None


def stopped_after(epochs: int, error: Exception | None = None) -> tuple[Told, Callable[[], None]]:
    """What a training tells, and a check that stops it in the epoch after."""
    error = error or Interrupted("stop")
    events: Told = []

    def check() -> None:
        if len(events) >= epochs:
            raise error

    return events, check


@pytest.mark.parametrize("epochs", [1, 2])
def test_an_interrupted_training_goes_on_from_its_last_epoch(trials: Folder, series: Series, epochs: int) -> None:
    full_run = run(objective(trials, series), "whole")
    events, check = stopped_after(epochs)
    with pytest.raises(Interrupted):
        run(objective(trials, series, events, check))
    assert (trials.path / "run_0000" / CHECKPOINT_FILE).is_file()
    assert not (trials.path / "run_0000" / WEIGHTS_FILE).exists()
    later_events: Told = []
    assert untimed(run(objective(trials, series, later_events))) == untimed(full_run)
    assert [data["epoch"] for _, _, data in later_events] == list(range(epochs + 1, 4))
    assert not (trials.path / "run_0000" / CHECKPOINT_FILE).exists()


@pytest.mark.parametrize(
    ("error", "has_checkpoint"),
    [(MemoryError("16 GB"), False), (FloatingPointError("nan"), False), (StorageError("full"), True)],
)
def test_only_a_training_that_can_go_on_leaves_its_checkpoint(
    trials: Folder, series: Series, error: Exception, has_checkpoint: bool
) -> None:
    events, check = stopped_after(1, error)
    with pytest.raises(type(error)):
        run(objective(trials, series, events, check))
    assert (trials.path / "run_0000" / CHECKPOINT_FILE).exists() is has_checkpoint


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\xff" * 64])
def test_a_damaged_checkpoint_costs_time_and_nothing_else(trials: Folder, series: Series, damage: bytes) -> None:
    full_run = run(objective(trials, series), "whole")
    trials.folder("run_0000").write_bytes(CHECKPOINT_FILE, damage)
    assert untimed(run(objective(trials, series))) == untimed(full_run)


def test_a_checkpoint_of_another_training_is_not_taken_up(trials: Folder, series: Series) -> None:
    full_run = run(objective(trials, series), "whole", seed=2)
    events, check = stopped_after(1)
    with pytest.raises(Interrupted):
        run(objective(trials, series, events, check), seed=1)
    later_events: Told = []
    assert untimed(run(objective(trials, series, later_events), seed=2)) == untimed(full_run)
    assert len(later_events) == 3


def test_values_that_do_not_go_together_are_refused_before_anything_is_written(trials: Folder, series: Series) -> None:
    with pytest.raises(ConfigError, match="n_heads"):
        run(objective(trials, series), **{"model.n_heads": 3})
    assert not trials.path.exists()
