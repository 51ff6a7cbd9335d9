"""kill -9 at any moment, then --resume: the same study as without the kill, down to the weights.

AGENTLAB_KILLS is the number of kills, at most four of the same study; 3 is for every day, 20 for a release.
"""

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from tests.zygote import Forked

REPOSITORY = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("AGENTLAB_KILLS", "3"))
OF_ONE_STUDY = 4
TRIALS = 10  # past the optimiser's start-up points, so that its surrogate takes part
EPOCHS = 3
TINY = (
    "nas",
    "demo",
    "--seed=7",
    "--set=data.split={train: 600, val: 150, test: 150}",
    "--set=training.train_fraction=0.4",
    "--set=finals.train_fraction=0.5",
    "--set=finals.count=1",
    "--set=finals.seeds=2",
    "--run-name=study",
)
# One model chooses among candidates, another judges near ties; both by lot, so that a lost answer would be noticed.
SCRIPT = {
    "providers": {"script": {"kind": "scripted", "mode": "random"}},
    "models": {
        "chooser": {"provider": "script", "id": "chooser", "tier": "pick"},
        "judge": {"provider": "script", "id": "judge", "tier": "full"},
    },
    "roles": {"primary": ["chooser"], "reserve": ["judge"]},
    "tasks": {"nas.propose": {"roles": ["primary"]}, "nas.evaluate": {"roles": ["reserve"]}},
}
STUDY = (*TINY, f"--set=training.epochs={EPOCHS}", f"--set=llm={json.dumps(SCRIPT)}")
RESUME = ("runs", "resume", "study")
CHECKPOINT = "trials/run_0000/last.safetensors"
OF_SESSIONS = ("run.", "study.")


def start(workspace: Path, *words: str) -> subprocess.Popen[str]:
    return Forked(
        [sys.executable, "-m", "agentlab", *words],
        cwd=workspace,
        env={
            **os.environ,
            "AGENTLAB_HOME": str(workspace),
            "PYTHONPATH": str(REPOSITORY),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def whole(workspace: Path, *words: str) -> None:
    """A run that nobody kills needs no process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTLAB_HOME", str(workspace))
        patch.setattr("agentlab.nas.plots.svg", lambda _: "<svg/>")  # pictures are not compared
        patch.chdir(workspace)
        assert main(list(words)) == 0


def finish(process: subprocess.Popen[str]) -> None:
    _, err = process.communicate(timeout=400)
    assert process.returncode == 0, err


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Look often: what is waited for is followed at once by something else."""
    deadline = time.monotonic() + 400
    while not condition():
        assert process.poll() is None, "the study ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill(process: subprocess.Popen[str], run: Path) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the study ended before it could be killed"
    assert json.loads((run / "manifest.json").read_text())["status"] in ("created", "running")


def count(run: Path) -> int:
    path = run / "events.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def events(run: Path) -> list[dict[str, Any]]:
    """All whole events."""
    complete_lines, _, _ = (run / "events.jsonl").read_text().rpartition("\n")
    return [json.loads(line) for line in complete_lines.splitlines()]


def story(run_events: Sequence[dict[str, Any]]) -> list[tuple[str, str, int, Any]]:
    """What a run did, decided, heard and measured, in order, less measured times.

    A step that a kill undid is told twice. It has to be told in the same words.
    """
    steps: dict[tuple[str, str, int], Any] = {}
    for event in run_events:
        if event["type"].startswith(OF_SESSIONS):
            continue
        data = event["data"]
        data.get("metrics", {}).pop("seconds", None)
        key = (event["type"], event["id"], data.get("epoch", 0))
        assert steps.setdefault(key, data) == data, f"{key} was told in two ways"
    return [(*key, data) for key, data in steps.items()]


def result(run: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((run / "result.json").read_text())
    for trial in document["trials"]:
        trial.pop("seconds")
    return document


def files(run: Path) -> dict[str, bytes]:
    """The state, the exported winner, and the weights and curve of every training, byte for byte."""
    paths = [run / "agent_state.json", *(run / "winner").iterdir()]
    paths += [path for path in (run / "trials").rglob("*") if path.suffix == ".safetensors" or "history" in path.name]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


def assert_same(run: Path, reference: Path) -> None:
    assert story(events(run)) == story(events(reference))
    assert result(run) == result(reference)
    ours, theirs = files(run), files(reference)
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study as it goes without a kill."""
    workspace = tmp_path_factory.mktemp("reference")
    whole(workspace, *STUDY, f"--max-iterations={TRIALS}")
    run = workspace / "runs" / "study"
    event_types = {event["type"] for event in events(run)}
    assert {"repeat.wanted", "llm.called", "trial.epoch", "winner.scored"} <= event_types
    assert any(name.startswith("trials/run_0000-r") for name in files(run))
    assert any("-f1/" in name for name in files(run))
    assert "gp" in {trial["source"] for trial in result(run)["trials"]}
    return run


@pytest.fixture(scope="module")
def moments(reference: Path) -> list[tuple[int, float]]:
    """When to kill: after how many steps, no two the same, and how much later, which often is within an epoch."""
    lot = random.Random(20261121)
    points = lot.sample(range(1, len(story(events(reference)))), KILLS)
    return [(point, lot.choice((0.0, lot.uniform(0.0, 0.4)))) for point in points]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, KILLS, OF_ONE_STUDY))
def test_kills_change_nothing(first: int, moments: list[tuple[int, float]], reference: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "study"
    words: tuple[str, ...] = (*STUDY, f"--max-iterations={TRIALS}")
    step_count = functools.cache(lambda _: len(story(events(run))))  # of so many lines
    for steps, seconds in sorted(moments[first : first + OF_ONE_STUDY]):
        process, before = start(tmp_path, *words), count(run)
        wait_for(process, lambda: count(run) > before and step_count(count(run)) >= steps)  # noqa: B023 - asked here alone
        time.sleep(seconds)
        kill(process, run)
        words = RESUME
    finish(start(tmp_path, *RESUME))
    assert_same(run, reference)


@pytest.mark.timeout(900)
def test_a_larger_budget_extends_a_finished_run(reference: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "study"
    whole(tmp_path, *STUDY, f"--max-iterations={TRIALS - 5}")
    whole(tmp_path, "nas", "--resume", "last", f"--max-iterations={TRIALS}")
    assert searched(run) == searched(reference)
    extended, expected = result(run), result(reference)
    assert extended.pop("test_looks") >= expected.pop("test_looks")  # the shorter study's winner was scored, too
    assert extended == expected


def searched(run: Path) -> list[Any]:
    """The story of the search, without the last rounds: the shorter study held one, too."""
    kinds = ("trial.", "decision.", "repeat.", "llm.")
    return [entry for entry in story(events(run)) if entry[0].startswith(kinds) and "-f" not in entry[1]]


# -- within one training ------------------------------------------------------------------------------------------


def first_trial(run: Path) -> list[Any]:
    """The story of trial 0 and the repetitions of its training."""
    return [entry for entry in story(events(run)) if entry[1].startswith("run_0000") and entry[0] != "winner.scored"]


def epochs(run_events: Sequence[dict[str, Any]]) -> list[int]:
    """The epochs of trial 0 that were told."""
    return [
        event["data"]["epoch"] for event in run_events if event["type"] == "trial.epoch" and event["id"] == "run_0000"
    ]


def begun(workspace: Path) -> tuple[subprocess.Popen[str], Path]:
    """A study of one trial, at work in its first training, whose first epoch has just been saved."""
    run = workspace / "runs" / "study"
    process = start(workspace, *STUDY, "--max-iterations=1", "--set=finals.count=0")
    wait_for(process, (run / CHECKPOINT).exists)
    return process, run


def test_a_killed_training_goes_on_from_its_last_epoch(reference: Path, tmp_path: Path) -> None:
    process, run = begun(tmp_path)
    kill(process, run)
    before = count(run)
    finish(start(tmp_path, *RESUME))
    resumed = epochs(events(run)[before:])
    assert resumed
    assert len(resumed) < EPOCHS
    assert first_trial(run) == first_trial(reference)


def test_a_damaged_checkpoint_costs_time_and_nothing_else(reference: Path, tmp_path: Path) -> None:
    process, run = begun(tmp_path)
    kill(process, run)
    before = count(run)
    blob = bytearray((run / CHECKPOINT).read_bytes())
    blob[len(blob) // 2] ^= 1
    (run / CHECKPOINT).write_bytes(blob)
    finish(start(tmp_path, *RESUME))
    assert epochs(events(run)[before:]) == list(range(1, EPOCHS + 1))
    assert first_trial(run) == first_trial(reference)


def test_ctrl_c_stops_within_a_training_and_names_the_way_on(reference: Path, tmp_path: Path) -> None:
    process, run = begun(tmp_path)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "agentlab runs resume study" in err
    assert json.loads((run / "manifest.json").read_text())["status"] == "interrupted"
    before = count(run)
    assert epochs(events(run)) != list(range(1, EPOCHS + 1)), "it trained to the end before it stopped"
    finish(start(tmp_path, *RESUME))
    resumed = epochs(events(run)[before:])
    assert resumed
    assert len(resumed) < EPOCHS
    assert first_trial(run) == first_trial(reference)


# -- with the embedded model --------------------------------------------------------------------------------------


@pytest.mark.model
@pytest.mark.timeout(900)
def test_a_kill_while_the_embedded_model_thinks(tmp_path: Path) -> None:
    """The answer is lost; the model gives it again."""
    short = (*TINY, "--set=training.epochs=1", "--set=finals.count=0", "--set=evaluator.noise=0", "--max-iterations=3")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole(tmp_path / "a", *short)
    uncut, run = tmp_path / "a" / "runs" / "study", tmp_path / "b" / "runs" / "study"
    call_index = [event["type"] for event in events(uncut)].index("llm.called")
    process = start(tmp_path / "b", *short)
    wait_for(process, lambda: count(run) >= call_index)
    time.sleep(0.3)
    kill(process, run)
    assert count(run) == call_index, "the model had answered before the kill"
    finish(start(tmp_path / "b", *RESUME))
    assert_same(run, uncut)
