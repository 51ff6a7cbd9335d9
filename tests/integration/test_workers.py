"""`--workers 2`: real worker processes train the trials of a study."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.zygote import ForkedWithAll

STUDY = (
    "nas",
    "demo",
    "--workers=2",
    "--set=llm=none",
    "--set=finals.count=1",
    "--set=data.split={train: 1200, val: 200, test: 200}",
    "--set=training.train_fraction=0.8",
    "--max-iterations=5",
    "--run-name=study",
    "--json",
)


def start(workspace: Path, *words: str) -> subprocess.Popen[str]:
    return ForkedWithAll(
        [sys.executable, "-m", "agentlab", *words],
        cwd=workspace,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def events(workspace: Path) -> list[dict[str, Any]]:
    path = workspace / "runs" / "study" / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(workspace: Path, kind: str, count: int = 1) -> None:
    deadline = time.monotonic() + 120
    while sum(event["type"] == kind for event in events(workspace)) < count:
        assert time.monotonic() < deadline, f"no {kind} came"
        time.sleep(0.02)


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children()
    return [child for child in children if "agentlab.study.worker" in " ".join(child.cmdline())]


@pytest.mark.timeout(300)
def test_a_killed_worker_costs_one_retry_and_not_the_study(workspace: Path) -> None:
    process = start(workspace, *STUDY)
    wait_for(workspace, "trial.epoch")
    killed, *survivors = workers(process)
    assert survivors, "two trainings run at a time"
    os.kill(killed.pid, signal.SIGKILL)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    result = json.loads(out)["result"]
    assert [trial["error"] for trial in result["trials"]] == [""] * 5
    retried = [event for event in events(workspace) if event["type"] == "trial.retried"]
    assert len(retried) == 1
    assert "kill" in retried[0]["data"]["reason"].lower()


@pytest.mark.timeout(300)
def test_two_workers_measure_what_one_does_and_a_stop_can_be_resumed(workspace: Path) -> None:
    process = start(workspace, *STUDY)
    wait_for(workspace, "decision.made", 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    resumed = start(workspace, "runs", "resume", "study", "--json")
    out, err = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, err
    parallel = {json.dumps(t["changes"]): t["val_mse"] for t in json.loads(out)["result"]["trials"]}
    alone = [word for word in STUDY if word not in ("--workers=2", "--run-name=study")]
    out, err = start(workspace, *alone).communicate(timeout=240)
    one = {json.dumps(t["changes"]): t for t in json.loads(out)["result"]["trials"]}
    same = set(parallel) & set(one)
    assert len(same) >= 3, "the first points do not depend on the order of completion"
    for key in same:
        if one[key]["trainings"] == 1:
            assert parallel[key] == one[key]["val_mse"]
