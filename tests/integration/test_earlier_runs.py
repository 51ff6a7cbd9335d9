"""Run folders that an earlier version has left, one complete and one killed: they list, show, and go on."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cli.main import main

pytestmark = pytest.mark.usefixtures("undrawn")

LEFT = Path(__file__).parent / "earlier_runs"  # without weights and pictures
KEPT = ("run_id", "source", "accepted", "judge", "params", "changes", "trainings", "exported")


@pytest.fixture
def runs(workspace: Path) -> Path:
    shutil.copytree(LEFT, workspace / "runs", dirs_exist_ok=True)
    return workspace / "runs"


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_they_are_listed_and_shown(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = answer(capsys, "runs", "list")["result"]
    assert "interrupted" in json.dumps(listed)
    for name in ("completed", "killed"):
        assert main(["runs", "show", name]) == 0
    page = capsys.readouterr().out
    assert "Winner run_0002 of 5 trials" in page


def test_a_complete_one_has_its_result(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = json.loads((runs / "completed" / "result.json").read_text())
    added = {"p": None, "smallest": None, "supposing": ""}  # which that version did not know
    result = answer(capsys, "runs", "resume", "completed")["result"]
    assert result == {**stored, "control": {**stored["control"], **added}}


def test_a_killed_one_goes_on_to_what_the_complete_one_has(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trials, verdicts and winner are the same; errors may differ in their last digits between processors."""
    before = (runs / "killed" / "events.jsonl").read_text()
    resumed = answer(capsys, "runs", "resume", "killed")["result"]
    uninterrupted = json.loads((runs / "completed" / "result.json").read_text())
    assert (runs / "killed" / "events.jsonl").read_text().startswith(before)
    for mine, theirs in zip(
        [resumed["winner"], *resumed["trials"]], [uninterrupted["winner"], *uninterrupted["trials"]], strict=True
    ):
        assert {key: mine[key] for key in KEPT if key in mine} == {key: theirs[key] for key in KEPT if key in theirs}
        assert mine["val_mse"] == pytest.approx(theirs["val_mse"], rel=1e-3)
    assert resumed["models"] == uninterrupted["models"]
