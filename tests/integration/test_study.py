"""Whole studies with real trainings on a small series: what they leave, how they fail, and the same seed twice."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentlab.nas import objective
from cli.main import main

COMMAND = ("nas", "demo", "--json", "-q", "--data=small.csv", "--set=data.horizon=8", "--set=llm=scripted")
BRIEF = ("--set=training.train_fraction=0.2", "--set=finals.count=2")  # the search trains on less than the last round
PLAIN = ("--set=evaluator.repeats=0", "--set=finals.count=1", "--set=finals.seeds=1")  # the search alone
TWO_POINTS = '--set=space={"model.d_model": {type: categorical, choices: [8, 16]}}'
DIVERGING = (
    "--set=training.optimizer_class=RMSprop",
    "--set=training.optimizer_params.lr=1.0",
    "--set=training.optimizer_params.momentum=0.99",
    "--set=training.epochs=8",
    "--set=training.patience=8",
    "--set=model.shortcut=true",  # a linear path, which nothing holds back
    '--set=space={"model.d_model": {type: categorical, choices: [8, 16]}, '
    '"training.optimizer_params.lr": {type: float, low: 0.0001, high: 1.0, log: true}}',
)
TRAINING = {"config_used.yaml", "metrics.json", "history.json", "learning_curve.svg", "best_model.safetensors"}

Study = Callable[..., dict[str, Any]]


@pytest.fixture
def study(undrawn: None, painted_study: Study) -> Study:
    """The same without the pictures."""
    return painted_study


@pytest.fixture
def painted_study(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Study:
    """Run `nas` and return its result, or its error where an exit code is expected."""
    rows = [
        f"2024-01-{1 + hour // 24:02d}T{hour % 24:02d}:00,{math.sin(hour / 4):.4f},{math.cos(hour / 7) + hour % 5:.4f}"
        for hour in range(24 * 20)
    ]
    (workspace / "small.csv").write_text("date,load,wind\n" + "\n".join(rows) + "\n")

    def run(*words: str, code: int = 0, command: tuple[str, ...] = COMMAND) -> dict[str, Any]:
        assert main([*command, *words]) == code, capsys.readouterr().err
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document["error"] if code else document["result"]

    return run


def untimed(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what a clock has measured."""
    return result | {"trials": [{k: v for k, v in trial.items() if k != "seconds"} for trial in result["trials"]]}


def keep(run: Path, lines: int) -> None:
    """Leave of a complete run what a kill after so many events would have left."""
    for product in ("plots", "studies"):
        shutil.rmtree(run / product)
    for product in ("report.md", "report.html", "result.json"):
        (run / product).unlink()
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"status": "running", "ended": None, "control": None}))
    first_lines = (run / "events.jsonl").read_bytes().splitlines(keepends=True)[:lines]
    (run / "events.jsonl").write_bytes(b"".join(first_lines))


# -- what a study leaves ----------------------------------------------------------------------------------------


def test_run_folder_holds_everything_the_documents_promise(painted_study: Study, workspace: Path) -> None:
    result = painted_study("--run-name=mine", "--max-iterations=3", *BRIEF)
    run = workspace / "runs" / "mine"
    for name in (
        "manifest.json",
        "config.yaml",
        "source.yaml",
        "events.jsonl",
        "report.md",
        "report.html",
        "result.json",
    ):
        assert (run / name).stat().st_size > 0, name
    for name in ("error_by_trial", "learning_curves", "forecasts", "error_by_step", "finalists"):
        assert (run / "plots" / f"{name}.svg").read_text().startswith("<svg"), name
        assert f"plots/{name}.svg" in (run / "report.md").read_text()

    best, second = (row["run_id"] for row in result["finalists"])
    trained = {path.name for path in (run / "trials").iterdir()}
    assert trained >= {"run_0000", "run_0000-r1", "run_0001", "run_0002"}
    assert trained >= {f"{best}-f0", f"{best}-f1", f"{second}-f0", f"{second}-f1"}
    assert len(trained) - 8 == sum(trial["trainings"] - 1 for trial in result["trials"][1:])  # near ties
    for name in trained:
        assert {path.name for path in (run / "trials" / name).iterdir()} == TRAINING
        assert "test" not in (run / "trials" / name / "metrics.json").read_text()
    used = yaml.safe_load((run / "trials" / f"{best}-f0" / "config_used.yaml").read_text())
    assert used["training"]["train_fraction"] == 0.25  # of the finals

    winner = result["winner"]
    assert winner["run_id"] in (best, second)
    assert winner["trainings"] == 2
    files = {path.name for path in (run / "winner").iterdir()}
    assert files == {"model.safetensors", "config.yaml", "scaler.json", "card.json"}
    card = json.loads((run / "winner" / "card.json").read_text())
    assert card["training"] == winner["exported"]
    assert card["run"] == "mine"

    state = json.loads((run / "agent_state.json").read_text())
    assert state["best_run_id"] == winner["run_id"]
    assert [r["run_id"] for r in state["runs"] if r["test_mse"] is not None] == [state["best_run_id"]]
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "completed"
    assert manifest["metrics"]["test_mse"]["value"] == winner["test_mse"]
    assert json.loads((run / "result.json").read_text())["winner"] == winner


def test_the_test_part_is_scored_for_the_winner_alone(study: Study, workspace: Path) -> None:
    """Every file that a study writes before it scores the winner is free of test figures."""
    result = study("--run-name=mine", "--max-iterations=3", *BRIEF)
    events = [json.loads(line) for line in (workspace / "runs" / "mine" / "events.jsonl").read_text().splitlines()]
    scored = [event for event in events if event["type"] == "winner.scored"]
    assert [event["id"] for event in scored] == [result["winner"]["run_id"]]
    assert events.index(scored[0]) > max(i for i, e in enumerate(events) if e["type"].startswith("trial."))
    payloads = [json.dumps(e["data"]) for e in events if e["type"].split(".")[0] in ("trial", "decision", "llm")]
    assert payloads
    assert not [text for text in payloads if "test_m" in text]


def test_same_seed_same_study_another_seed_another(study: Study) -> None:
    words = ("--max-iterations=4", "--set=finals.count=1", "--set=finals.seeds=1")
    first, same_seed, other_seed = (untimed(study(*words, f"--seed={seed}")) for seed in (3, 3, 4))
    assert first == same_seed
    assert first["winner"]["val_mse"] != other_seed["winner"]["val_mse"]


def test_dry_run_writes_nothing_and_tells_the_plan(study: Study, workspace: Path) -> None:
    plan = study("--dry-run")
    assert (plan["trials"], plan["repeats"], plan["finals"]) == (4, 1, 2)
    assert plan["parameters"] > 0
    assert [path.name for path in workspace.iterdir()] == ["small.csv"]


# -- what is set ------------------------------------------------------------------------------------------------


def test_without_a_last_round_the_accepted_trial_is_the_winner_as_it_stands(study: Study, workspace: Path) -> None:
    result = study("--run-name=mine", "--max-iterations=3", "--set=finals.count=0", "--set=evaluator.repeats=0")
    assert result["finalists"] == []
    accepted = [trial for trial in result["trials"] if trial["accepted"]][-1]
    assert result["winner"]["run_id"] == result["winner"]["exported"] == accepted["run_id"]
    assert (result["winner"]["trainings"], result["winner"]["test_mse_spread"]) == (1, None)
    assert not [path for path in (workspace / "runs" / "mine" / "trials").iterdir() if "-f" in path.name]


def test_a_last_round_trains_with_seeds_of_its_own_even_at_the_budget_of_the_search(
    study: Study, workspace: Path
) -> None:
    result = study("--run-name=mine", "--max-iterations=1", "--set=finals.count=1", "--set=finals.seeds=3")
    trained = {path.name for path in (workspace / "runs" / "mine" / "trials").iterdir()}
    assert trained == {"run_0000", "run_0000-r1", "run_0000-f0", "run_0000-f1", "run_0000-f2"}
    (finalist,) = result["finalists"]
    assert len({*finalist["val_mse"], result["trials"][0]["val_mse"]}) == 4
    assert result["winner"]["trainings"] == 3
    assert result["winner"]["exported"] in trained - {"run_0000", "run_0000-r1"}


def test_noise_that_is_given_is_not_measured(study: Study, workspace: Path) -> None:
    result = study("--run-name=mine", "--max-iterations=2", *PLAIN[1:], "--set=evaluator.noise=0.05")
    assert (result["noise"]["deviation"], result["noise"]["trainings"]) == (0.05, 0)
    assert not (workspace / "runs" / "mine" / "trials" / "run_0000-r1").exists()
    assert "5.0% per training" in (workspace / "runs" / "mine" / "report.md").read_text()


def test_seconds_are_a_budget_that_a_resume_may_raise(study: Study) -> None:
    short = study("--run-name=mine", "--max-iterations=4", "--set=max_seconds=0.001", *PLAIN)
    assert len(short["trials"]) == 1
    longer = study("--set=max_seconds=1000", command=("nas", "--resume=mine", "--json"))
    assert len(longer["trials"]) == 4
    assert longer["trials"][0] == short["trials"][0]


def test_a_small_space_ends_the_search_when_every_point_was_tried(study: Study) -> None:
    assert len(study("--max-iterations=9", TWO_POINTS, *PLAIN)["trials"]) == 2


def test_an_empty_space_trains_trial_0_alone(study: Study, workspace: Path) -> None:
    (workspace / "one.yaml").write_text("extends: demo\nspace: null\n")
    command = ("nas", "one.yaml", *COMMAND[2:])
    result = study("--max-iterations=1", *PLAIN, command=command)
    assert [trial["source"] for trial in result["trials"]] == ["default"]
    assert result["winner"]["changes"] == {}
    error = study("--max-iterations=2", *PLAIN, command=command, code=2)
    assert error["kind"] == "ConfigError"
    assert "`space` is empty" in error["message"]


# -- paired studies ---------------------------------------------------------------------------------------------


def test_full_control_fills_the_record_and_goes_on_where_a_kill_has_left_it(study: Study, workspace: Path) -> None:
    control = ("--set=control=full", "--set=control_seeds=6")
    uninterrupted = study("--run-name=mine", "--max-iterations=2", TWO_POINTS, *PLAIN, *control)
    run = workspace / "runs" / "mine"
    assert [pair["seed"] for pair in uninterrupted["pairs"]] == [0, 1, 2, 3, 4, 5]
    record = uninterrupted["control"]
    assert (record["n"], record["metric"], record["direction"]) == (6, "lowest validation MSE of a study", "lower")
    assert record["verdict"] in ("helped", "no_measurable_help", "hurt")
    assert record["low"] <= record["estimate"] <= record["high"]
    assert "on 6 pairs of studies" in uninterrupted["control_note"]
    assert json.loads((run / "manifest.json").read_text())["control"] == record
    assert "plots/paired_studies.svg" in (run / "report.md").read_text()
    assert len(list((run / "studies").iterdir())) == 11
    state = json.loads((run / "agent_state.json").read_text())
    assert len(state["runs"]) == 2  # the main study's

    lines = (run / "events.jsonl").read_text().splitlines()
    half = next(index for index, line in enumerate(lines) if '"agent-3/run_0001"' in line)
    keep(run, half)
    assert untimed(study(command=("nas", "--resume=mine", "--json"))) == untimed(uninterrupted)
    resumed = (run / "events.jsonl").read_text().splitlines()
    trained = [json.loads(line)["id"] for line in resumed if '"trial.finished"' in line]
    assert len(trained) == len(set(trained))  # nothing was trained twice


# -- failures ---------------------------------------------------------------------------------------------------


def test_a_diverging_trial_is_recorded_as_failed_and_the_search_goes_on(study: Study) -> None:
    result = study("--max-iterations=5", *DIVERGING, *PLAIN)
    first, *rest = result["trials"]
    assert "DivergedError" in first["error"]
    assert first["val_mse"] is None
    assert any(trial["val_mse"] is not None for trial in rest)
    assert result["winner"]["run_id"] != "run_0000"


def failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool]) -> None:
    """Have the n-th training, from 0, run out of memory."""
    original, calls = objective.train, iter(range(1_000))

    def train(*args: Any, **kwargs: Any) -> Any:
        if fails(next(calls)):
            raise MemoryError("16 GB wanted")
        return original(*args, **kwargs)

    monkeypatch.setattr(objective, "train", train)


def test_an_out_of_memory_trial_is_recorded_as_failed_and_the_search_goes_on(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, lambda call: call == 1)
    result = study("--max-iterations=3", *PLAIN, "--set=evaluator.noise=0")
    assert [trial["error"] for trial in result["trials"]] == ["", "MemoryError: 16 GB wanted", ""]


def test_a_failed_repeat_leaves_the_trial_its_first_training(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, lambda call: call == 1)  # the repeat of trial 0
    result = study("--max-iterations=1", *PLAIN[1:])
    assert result["trials"][0]["error"] == ""
    assert result["trials"][0]["accepted"]
    assert result["noise"]["trainings"] == 0
    assert "not measured" in result["noise"]["note"]


def test_a_failed_training_of_the_last_round_leaves_the_others(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, lambda call: call == 1)  # the first one of the last round
    words = ("--max-iterations=1", *BRIEF, "--set=evaluator.repeats=0")
    result = study(*words)
    assert [row["failed"] for row in result["finalists"]] == [1]
    assert (result["winner"]["trainings"], result["winner"]["exported"]) == (1, "run_0000-f1")


def test_a_study_without_any_success_fails_and_says_where_the_tracebacks_are(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, lambda call: True)
    error = study("--max-iterations=2", code=1)
    assert "All 2 trials failed" in error["message"]
    assert "16 GB wanted" in error["message"]
    assert "events.jsonl" in error["hint"]
