"""`agentlab nas predict` and `export`, and what the help and a mistyped word say about them."""

import csv
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentlab.config.workspace import Workspace
from agentlab.nas.artefact import Artefact, write_artefact
from agentlab.nas.config import DataConfig, ModelConfig, TrainingConfig, TrialConfig
from agentlab.nas.data import close_gaps, load_series
from agentlab.nas.predict import forecast, read_input
from agentlab.nas.table import read_table
from agentlab.nas.training import train
from agentlab.runs.run import OpenRun, RunEnvironment, RunOutcome, RunSpec
from cli.main import main
from tests.cli.conftest import Answer
from tests.conftest import REPOSITORY

Call = Callable[..., Answer]
NOWHERE = Workspace(root=Path("/nowhere"), cache=Path("/nowhere"))
TRIAL = TrialConfig(
    data=DataConfig(gaps="ffill", input_length=24, horizon=6),
    model=ModelConfig(d_model=8, n_heads=2, e_layers=1),
    training=TrainingConfig(epochs=1, train_fraction=0.05),
)


@pytest.fixture(scope="module")
def winner() -> Artefact:
    """A tiny network, trained on the embedded weather."""
    series = load_series(TRIAL.data, NOWHERE)
    return Artefact.of(TRIAL, series, train(TRIAL, series, seed=1).state_dict, {"run": "mine"})


@pytest.fixture
def run(workspace: Path, winner: Artefact) -> Iterator[OpenRun]:
    """A run named `mine` that has a winner, on its way to completion."""
    spec = RunSpec("nas", config_yaml="", source_yaml="", config_hash="", seed=0, name="mine")
    with OpenRun.create(workspace / "runs", spec, RunEnvironment()) as run:
        write_artefact(run.folder.folder("winner"), winner)
        run.start({})
        run.complete(RunOutcome())
        yield run


@pytest.fixture
def data(workspace: Path) -> Path:
    """The first 100 hours of the weather, and a column that the model does not know."""
    table = close_gaps(read_table(TRIAL.data, NOWHERE), TRIAL.data)
    with (workspace / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["remark", "date", *table.names])
        writer.writerows(
            ["fine", date, *row] for date, row in zip(table.dates[:100], table.values[:100].tolist(), strict=True)
        )
    return workspace / "data.csv"


def expected(winner: Artefact, data: Path) -> str:
    return forecast(winner, read_input(winner, data)).to_csv()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["pipe", "pipe.csv", "pipe.csv.gz", "/dev/zero", "runs"])
def test_an_input_that_is_no_file_is_refused_at_once(agentlab: Call, run: OpenRun, workspace: Path, name: str) -> None:
    if name.startswith("pipe"):
        os.mkfifo(workspace / name)
    answer = agentlab("nas", "predict", "mine", "--input", name)
    assert (answer.code, "is a " in answer.err) == (2, True)


@pytest.mark.parametrize("flag", ["--output", "--out"])
def test_a_forecast_goes_into_a_file(agentlab: Call, run: OpenRun, winner: Artefact, data: Path, flag: str) -> None:
    answer = agentlab("nas", "predict", "mine", "--input", "data.csv", flag, "forecast.csv")
    assert (answer.code, answer.out) == (0, f"{data.parent / 'forecast.csv'}\n")
    text = (data.parent / "forecast.csv").read_text()
    assert text == expected(winner, data)
    rows = list(csv.reader(io.StringIO(text)))
    assert (rows[0][0], len(rows), rows[1][0]) == ("date", 7, "2013-01-05 10:00:00")
    assert "remark" not in rows[0]


@pytest.mark.parametrize("ref", ["mine", "last", "last:nas", "mi", "runs/mine", "runs/mine/winner", "./runs/mine"])
def test_without_a_file_the_forecast_is_the_answer(
    agentlab: Call, run: OpenRun, winner: Artefact, data: Path, ref: str
) -> None:
    answer = agentlab("nas", "predict", ref, "--input", "data.csv")
    assert (answer.code, answer.out) == (0, expected(winner, data))


def test_json_is_one_document_whose_numbers_are_those_of_the_file(
    agentlab: Call, run: OpenRun, winner: Artefact, data: Path
) -> None:
    document = agentlab("nas", "predict", "last", "--input", "data.csv", "--output", "forecast.csv", "--json").json
    assert (document["command"], document["run"]["id"]) == ("nas predict", "mine")
    header, *rows = csv.reader(io.StringIO((data.parent / "forecast.csv").read_text()))
    result = document["result"]
    assert result["path"] == str(data.parent / "forecast.csv")
    assert (result["date_column"], list(result["values"])) == ("date", header[1:])
    assert result["dates"] == [row[0] for row in rows]
    assert list(zip(*result["values"].values(), strict=True)) == [tuple(map(float, row[1:])) for row in rows]


def test_an_exported_model_forecasts_alike_without_its_run_and_in_another_process(
    agentlab: Call, run: OpenRun, winner: Artefact, data: Path, tmp_path: Path
) -> None:
    exported = agentlab("nas", "export", "mine", "--out", "my model")
    assert (exported.code, exported.out) == (0, f"{data.parent / 'my model'}\n")
    command = exported.err.strip().removeprefix("hint: agentlab ").replace("FILE", str(data))
    run.path.rename(tmp_path / "gone")
    done = subprocess.run(
        [sys.executable, "-m", "agentlab", *shlex.split(command)], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert (done.returncode, done.stdout) == (0, expected(winner, data)), done.stderr
    assert agentlab("nas", "predict", "my model", "--input", data).out == done.stdout
    assert json.loads((data.parent / "my model" / "card.json").read_text())["run"] == "mine"


def test_an_export_overwrites_nothing(agentlab: Call, run: OpenRun, data: Path) -> None:
    answer = agentlab("nas", "export", "mine", "--out", data, "--json")
    assert (answer.code, answer.json["error"]["kind"]) == (2, "UsageError")
    assert data.is_file()


def test_a_run_without_a_winner_says_how_to_get_one(agentlab: Call, run: OpenRun, data: Path) -> None:
    (run.path / "winner" / "model.safetensors").unlink()
    for words in (("predict", "mine", "--input", "data.csv"), ("export", "mine", "--out", "new")):
        answer = agentlab("nas", *words)
        assert (answer.code, "mine is completed and has no winner" in answer.err) == (3, True)
        assert "agentlab nas --resume mine" in answer.err
    run.start({})
    run.interrupt()
    answer = agentlab("nas", "predict", "mine", "--input", "data.csv")
    assert (answer.code, "hint: Finish it: agentlab runs resume mine" in answer.err) == (3, True)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("predict", "nope", "--input", "data.csv"), 2, "no run named 'nope'"),
        (("predict", "./nope", "--input", "data.csv"), 3, "is not an exported model"),
        (("predict", "mine"), 2, "--input"),
        (("predict", "mine", "--input", "nope.csv"), 3, "Pass a file: --input FILE"),
        (("predict", "mine", "--input", "data.csv", "--output", "data.csv"), 2, "data.csv is the input"),
        (("predict", "mine", "--input", "data.csv", "--output", "nope/forecast.csv"), 3, "Cannot write"),
        (("predict", "mine", "--input", "data.csv", "--output", "."), 3, "Cannot write"),
        (("predict", "mine", "--input", "short.csv"), 2, "the model needs the last 24"),
        (("predict", "mine", "--input", "narrow.csv"), 2, "narrow.csv lacks 6 of the model's 7 columns"),
        (("export", "mine"), 2, "--out"),
    ],
)
def test_what_cannot_be_done_is_said(
    agentlab: Call, run: OpenRun, data: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    rows = data.read_text().splitlines(keepends=True)
    (data.parent / "short.csv").write_text("".join(rows[:10]))
    (data.parent / "narrow.csv").write_text("".join(",".join(row.split(",")[1:3]) + "\n" for row in rows))
    before = sorted(data.parent.rglob("*"))
    answer = agentlab("nas", *words)
    assert (answer.code, answer.out, message in answer.err) == (code, "", True), answer.err
    assert sorted(data.parent.rglob("*")) == before


def test_filled_gaps_are_told_beside_the_answer(agentlab: Call, run: OpenRun, data: Path) -> None:
    lines = data.read_text().splitlines(keepends=True)
    data.write_text("".join([*lines[:90], *lines[91:]]))
    answer = agentlab("nas", "predict", "mine", "--input", "data.csv")
    assert (answer.code, "1 missing row" in answer.err, "missing" in answer.out) == (0, True, False)


def test_a_run_of_another_command_has_no_forecaster(agentlab: Call, workspace: Path) -> None:
    spec = RunSpec("bench", config_yaml="", source_yaml="", config_hash="", seed=0, name="other")
    OpenRun.create(workspace / "runs", spec, RunEnvironment()).close()
    answer = agentlab("nas", "predict", "other", "--input", "data.csv")
    assert (answer.code, "belongs to `bench`" in answer.err) == (2, True)


# -- one group: a default subcommand, presets and other subcommands ------------------------------------------------


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_the_help_shows_flags_subcommands_and_examples(agentlab: Call, flag: str) -> None:
    answer = agentlab("nas", flag)
    assert answer.code == 0
    words = ("--max-iterations", "--resume", "Commands", "predict", "export", "agentlab nas demo", "[CONFIG]")
    assert [word for word in words if word not in answer.out] == []
    assert "--input" in agentlab("nas", "predict", flag).out
    assert "--max-iterations" in agentlab("nas", "demo", flag).out


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (("predct",), "predict"),
        (("--seed", "3", "predct"), "predict"),
        (("exprt",), "export"),
        (("dmo",), "demo"),
        (("--dry-run", "dmo"), "demo"),
    ],
)
def test_a_mistyped_word_is_compared_with_presets_and_subcommands(
    agentlab: Call, words: tuple[str, ...], suggestion: str
) -> None:
    answer = agentlab("nas", *words)
    assert (answer.code, f"Did you mean {suggestion}" in answer.err) == (2, True), answer.err


def test_a_subcommand_comes_first(agentlab: Call) -> None:
    answer = agentlab("nas", "--seed", "3", "predict")
    assert (answer.code, "'predict' is a subcommand and must come first" in answer.err) == (2, True)


def test_a_preset_may_not_bear_the_name_of_a_subcommand(agentlab: Call, workspace: Path) -> None:
    (workspace / "configs" / "nas").mkdir(parents=True)
    (workspace / "configs" / "nas" / "predict.yaml").write_text("extends: demo\n")
    assert "No such option: --dry-run" in agentlab("nas", "predict", "--dry-run").err


def test_another_unknown_name_keeps_its_own_message(agentlab: Call) -> None:
    assert "no llm preset named 'nope'" in agentlab("nas", "demo", "--set", "llm=nope", "--dry-run").err


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("nas --max-i", "--max-iterations"),
        ("nas demo --res", "--resume"),
        ("nas pred", "predict"),
        ("nas dem", "demo"),
        ("nas predict last --inp", "--input"),
    ],
)
def test_the_shell_completes_options_presets_and_subcommands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, typed: str, offered: str
) -> None:
    monkeypatch.setenv("_AGENTLAB_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"agentlab {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
    with pytest.raises(SystemExit):
        main([])
    assert offered in capsys.readouterr().out.split()
