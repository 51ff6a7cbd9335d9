"""Whole studies: failures of single trials, what lies in the run folder, and the same seed twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentlab.nas import objective
from cli.main import main

TINY = ("nas", "demo", "--json", "-q", "--set=training.train_fraction=0.03", "--set=llm=scripted")
DIVERGING = (
    "--set=training.optimizer_class=RMSprop",
    "--set=training.optimizer_params.lr=1.0",
    "--set=training.optimizer_params.momentum=0.99",
    "--set=training.epochs=4",
    "--set=training.patience=4",
    "--set=model.shortcut=true",  # a linear path, which nothing holds back
    '--set=space={"model.d_model": {type: categorical, choices: [8, 16]}, '
    '"training.optimizer_params.lr": {type: float, low: 0.0001, high: 1.0, log: true}}',
)

Study = Callable[..., dict[str, Any]]


@pytest.fixture
def study(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Study:
    """Run a study and return its result."""

    def run(*words: str, code: int = 0) -> dict[str, Any]:
        assert main([*TINY, *words]) == code
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document["error"] if code else document["result"]

    return run


def test_run_folder_holds_everything_the_documents_promise(study: Study, workspace: Path) -> None:
    result = study("--run-name=mine", "--max-iterations=3")
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
    for name in ("error_by_trial.png", "learning_curves.png", "forecasts.png"):
        assert (run / "plots" / name).read_bytes().startswith(b"\x89PNG"), name
    trials = sorted(path.name for path in (run / "trials").iterdir())
    assert trials == ["run_0000", "run_0001", "run_0002"]
    for trial in trials:
        files = {path.name for path in (run / "trials" / trial).iterdir()}
        assert files == {
            "config_used.yaml",
            "metrics.json",
            "history.json",
            "learning_curve.png",
            "best_model.safetensors",
        }
        assert "test" not in (run / "trials" / trial / "metrics.json").read_text()
    used = yaml.safe_load((run / "trials" / "run_0001" / "config_used.yaml").read_text())
    assert used["model"]["d_model"] in (8, 16)
    state = json.loads((run / "agent_state.json").read_text())
    assert state["best_run_id"] == result["winner"]["run_id"]
    assert [r["run_id"] for r in state["runs"] if r["test_mse"] is not None] == [state["best_run_id"]]
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "completed"
    assert manifest["metrics"]["test_mse"]["value"] == result["winner"]["test_mse"]


def test_same_seed_same_study_another_seed_another(study: Study) -> None:
    def told(result: dict[str, Any]) -> list[Any]:
        return [(t["source"], t["arm"], t["val_mse"], t["changes"]) for t in result["trials"]]

    first, again, other = (told(study("--max-iterations=5", f"--seed={seed}")) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_a_diverging_trial_is_recorded_as_failed_and_the_search_goes_on(study: Study) -> None:
    result = study("--max-iterations=5", *DIVERGING)
    first, *rest = result["trials"]
    assert "DivergedError" in first["error"]
    assert first["val_mse"] is None
    assert any(trial["val_mse"] is not None for trial in rest)
    assert result["winner"]["run_id"] != "run_0000"


def test_an_out_of_memory_trial_is_recorded_as_failed_and_the_search_goes_on(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = objective.train, 0

    def train(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise MemoryError
        return original(*args, **kwargs)

    monkeypatch.setattr(objective, "train", train)
    result = study("--max-iterations=4")
    assert [trial["error"] for trial in result["trials"]] == ["", "MemoryError", "", ""]


def test_a_study_without_any_success_fails_and_says_where_the_tracebacks_are(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: Any, **__: Any) -> Any:
        raise MemoryError("16 GB wanted")

    monkeypatch.setattr(objective, "train", train)
    error = study("--max-iterations=2", code=1)
    assert "All 2 trials failed" in error["message"]
    assert "16 GB wanted" in error["message"]
    assert "events.jsonl" in error["hint"]


def test_a_small_space_ends_the_search_when_every_point_was_tried(study: Study) -> None:
    space = '--set=space={"model.d_model": {type: categorical, choices: [8, 16]}}'
    result = study("--max-iterations=9", space)
    assert len(result["trials"]) == 2


def test_dry_run_writes_nothing_and_tells_the_plan(study: Study, workspace: Path) -> None:
    plan = study("--dry-run")
    assert plan["trials"] == 4
    assert plan["parameters"] > 0
    assert list(workspace.iterdir()) == []


def test_seconds_are_a_budget_that_a_resume_may_raise(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    short = study("--run-name=mine", "--max-iterations=4", "--set=max_seconds=0.001")
    assert len(short["trials"]) == 1
    assert main(["nas", "--resume=mine", "--set=max_seconds=1000", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["result"]["trials"]) == 4
