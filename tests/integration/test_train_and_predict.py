"""From a config to a forecast: `nas train`, `nas export`, `nas predict`."""

import csv
import gzip
import json
from importlib.resources import files
from pathlib import Path

import pytest

from cli.main import main

pytestmark = pytest.mark.usefixtures("undrawn")

QUICK = ("--set=training.train_fraction=0.03", "--set=training.epochs=1", "--json", "-q")


@pytest.fixture
def weather(workspace: Path) -> Path:
    """The embedded series as a file of the user's."""
    path = workspace / "weather.csv"
    path.write_bytes(gzip.decompress((files("agentlab.nas") / "embedded" / "new_york_weather.csv.gz").read_bytes()))
    return path


def test_one_configuration_is_trained_scored_and_exported(
    workspace: Path, weather: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["nas", "train", "demo", "--tag=test", "--data=weather.csv", *QUICK]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "-nas-test-" in document["run"]["id"]
    (trial,) = document["result"]["trials"]
    assert document["result"]["winner"]["run_id"] == trial["run_id"]
    assert document["result"]["planner"]["calls"] == 0

    assert main(["nas", "predict", "last", "--input=weather.csv", "--output=first.csv", "-q"]) == 0
    assert main(["nas", "export", "last", "--out=forecaster", "-q"]) == 0
    assert main(["nas", "predict", "./forecaster", "--input=weather.csv", "--output=second.csv", "-q"]) == 0
    assert Path("first.csv").read_bytes() == Path("second.csv").read_bytes()
    rows = list(csv.DictReader(Path("first.csv").read_text().splitlines()))
    assert len(rows) == 24
    assert rows[0]["date"] == "2013-12-31 00:00:00"


def test_the_config_of_an_earlier_trial_can_be_trained_again(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = ("--max-iterations=2", "--set=llm=none", "--set=evaluator.repeats=0", "--set=finals.count=0")
    assert main(["nas", "demo", "--run-name=search", *search, *QUICK]) == 0
    trials = json.loads(capsys.readouterr().out)["result"]["trials"]
    used = workspace / "runs" / "search" / "trials" / "run_0001" / "config_used.yaml"
    assert main(["nas", "train", str(used), *QUICK]) == 0
    (retrained,) = json.loads(capsys.readouterr().out)["result"]["trials"]
    assert retrained["val_mse"] == trials[1]["val_mse"]


def test_training_one_configuration_searches_nothing(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = "--set=data.batch_size=17"  # no value of the preset's space: nobody asks
    assert main(["nas", "train", "demo", outside, "--dry-run", *QUICK]) == 0
    plan = json.loads(capsys.readouterr().out)["result"]
    assert (plan["trials"], plan["searched"]) == (1, [])


def test_a_training_goes_on_like_any_run(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("agentlab.nas.report.study_report", stopped)
        assert main(["nas", "train", "demo", "--run-name=mine", *QUICK]) == 130
    capsys.readouterr()
    assert main(["nas", "train", "--resume=mine", *QUICK[2:]]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["run"]["id"] == "mine"
    (trial,) = document["result"]["trials"]
    assert document["result"]["winner"]["run_id"] == trial["run_id"]


def test_a_tag_that_is_no_file_name_is_refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nas", "train", "demo", "--tag=../x", *QUICK]) == 2
    assert "is not a valid run name" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert not (workspace / "runs").exists()
