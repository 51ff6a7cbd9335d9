"""kill -9 at any moment, then --resume: the same trials, best configuration and metrics as without the kill."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TRIALS = 9  # past the optimiser's start-up points, so that its surrogate takes part
STUDY = ("nas", "demo", "--seed", "7", "--max-iterations", str(TRIALS), "--set", "training.train_fraction=0.05")
RANDOM = random.Random(20261121)


def start(workspace: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "agentlab", *words],
        cwd=workspace,
        env={
            **os.environ,
            "AGENTLAB_HOME": str(workspace),
            "AGENTLAB_CACHE": str(REPOSITORY),
            "PYTHONPATH": str(REPOSITORY),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


def story(run: Path) -> list[tuple[str, str, Any]]:
    """What the run decided and measured: every event that carries a result, less measured times."""
    told: dict[tuple[str, str], Any] = {}
    for line in (run / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if (
            event["type"].split(".")[0] in ("trial", "decision", "winner", "reference")
            and event["type"] != "trial.epoch"
        ):
            data = event["data"]
            data.get("metrics", {}).pop("seconds", None)
            told[event["type"], event["id"]] = data  # a step that was repeated after the kill tells the same again
    return [(*key, data) for key, data in told.items()]


def result(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text())
    for trial in found["trials"]:
        trial.pop("seconds")
    return found


def kill_after(process: subprocess.Popen[str], events: Path, lines: int) -> bool:
    """Kill the process without warning as soon as the run has so many events; False if it ended before."""
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if events.exists() and events.read_bytes().count(b"\n") >= lines:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            return True
        time.sleep(0.002)
    return False


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study as it goes without a kill."""
    workspace = tmp_path_factory.mktemp("reference")
    finish(start(workspace, *STUDY, "--run-name", "study"))
    return workspace / "runs" / "study"


@pytest.mark.model
@pytest.mark.timeout(600)
def test_random_kills_change_nothing(reference: Path, tmp_path: Path) -> None:
    total = len((reference / "events.jsonl").read_text().splitlines())
    points = sorted(RANDOM.sample(range(1, total), 5))
    run = tmp_path / "runs" / "study"
    process = start(tmp_path, *STUDY, "--run-name", "study")
    killed = 0
    for point in points:
        already = (run / "events.jsonl").read_bytes().count(b"\n") if (run / "events.jsonl").exists() else 0
        if not kill_after(process, run / "events.jsonl", max(point, already + 1)):
            break
        killed += 1
        assert json.loads((run / "manifest.json").read_text())["status"] in ("created", "running")
        process = start(tmp_path, "runs", "resume", "study")
    finish(process) if process.poll() is None else process.communicate()
    assert killed >= 3, f"only {killed} of the kills at {points} of {total} events hit a living process"
    assert story(run) == story(reference)
    assert result(run) == result(reference)
    assert json.loads((run / "agent_state.json").read_text()) == json.loads(
        (reference / "agent_state.json").read_text()
    )


@pytest.mark.model
@pytest.mark.timeout(600)
def test_a_larger_budget_extends_a_finished_run(reference: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "study"
    shorter = [word if word != str(TRIALS) else str(TRIALS - 4) for word in STUDY]
    finish(start(tmp_path, *shorter, "--run-name", "study"))
    finish(start(tmp_path, "nas", "--resume", "last", "--max-iterations", str(TRIALS)))
    trials = [entry for entry in story(run) if entry[0].startswith(("trial", "decision"))]
    assert trials == [entry for entry in story(reference) if entry[0].startswith(("trial", "decision"))]
    assert result(run) == result(reference)


@pytest.mark.model
@pytest.mark.timeout(600)
def test_first_ctrl_c_stops_after_the_step_and_names_the_way_on(reference: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "study"
    process = start(tmp_path, *STUDY, "--run-name", "study")
    while not (run / "events.jsonl").exists() or b"trial.started" not in (run / "events.jsonl").read_bytes():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "agentlab runs resume study" in err
    assert json.loads((run / "manifest.json").read_text())["status"] == "interrupted"
    finish(start(tmp_path, "runs", "resume", "study"))
    assert result(run) == result(reference)
