"""`accelerate launch ... -m agentlab train-persona`: two processes on the CPU make one run, like one process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.unit.train.tiny_base import tiny_checkpoint
from tests.zygote import ForkedWithAll

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = {
    "base": "tiny",
    "personas": [{"name": "so", "data": "so.jsonl"}],
    "lora": {"r": 4},
    "training": {"max_length": 128, "precision": "fp32", "lr": 0.005, "epochs": 12, "batch_size": 2, "evals": 2},
    "report": {"forgetting": 0, "separability": 0, "samples": []},
}
TRAIN = ("train-persona", "./one.yaml", "--run-name", "run", "--json")
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny")


def workspace(root: Path, checkpoint: Path) -> Path:
    """A tiny base, twelve conversations, a config."""
    (root / "models").mkdir(parents=True)
    shutil.copytree(checkpoint, root / "models" / "tiny")
    exchanges = [f"Why {n}? So {n} so {n}.".split("? ") for n in range(12)]
    turns = [[{"role": "user", "content": ask}, {"role": "assistant", "content": answer}] for ask, answer in exchanges]
    (root / "so.jsonl").write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
    (root / "one.yaml").write_text(json.dumps(CONFIG))
    return root


def start(
    root: Path, *words: str, processes: int = 2, popen: type["subprocess.Popen[str]"] = ForkedWithAll
) -> "subprocess.Popen[str]":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # `--cpu` would start one process only; without a GPU to be seen, these two use the CPU
    launch = ("accelerate.commands.launch", "--multi_gpu", f"--num_processes={processes}", "--num_machines=1")
    launch_flags = ("--mixed_precision=no", "--dynamo_backend=no", f"--main_process_port={port}", "-m")
    variables = {"AGENTLAB_HOME": str(root), "AGENTLAB_CACHE": str(root), "PYTHONPATH": str(REPOSITORY)}
    return popen(
        [sys.executable, "-m", *(launch + launch_flags if processes > 1 else ()), "agentlab", *words],
        cwd=root,
        env={**os.environ, **variables, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def losses(out: str) -> list[list[tuple[int, float]]]:
    """What `--json` says of the only persona: losses in training and on the held-out conversation, by step."""
    (row,) = json.loads(out)["result"]["personas"]
    return [[(point["step"], point["loss"]) for point in row[key]] for key in ("train_loss", "eval_losses")]


@pytest.fixture(scope="module")
def single_process_run(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> tuple[Path, str, str]:
    """A training by two processes that nobody stopped, from nothing: its workspace, stdout and stderr."""
    place = workspace(tmp_path_factory.mktemp("whole") / "ws", checkpoint)
    process = start(place, *TRAIN, popen=subprocess.Popen)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return place, out, err


def test_two_processes_make_one_run_and_one_adapter(single_process_run: tuple[Path, str, str]) -> None:
    root, out, err = single_process_run
    assert [path.name for path in (root / "runs").iterdir()] == ["run"]
    assert [path.name for path in (root / "adapters").iterdir()] == ["so"]
    assert json.loads(out)["run"]["status"] == "completed"
    assert err.count("run run\n") == err.count("so: written to") == 1
    assert "arning" not in err
    events = [json.loads(line) for line in (root / "runs" / "run" / "events.jsonl").read_text().splitlines()]
    assert [event["type"] for event in events].count("train.eval") == 2


def test_they_train_as_one_process_with_as_large_a_batch(
    single_process_run: tuple[Path, str, str], checkpoint: Path, tmp_path: Path
) -> None:
    alone = start(workspace(tmp_path / "ws", checkpoint), *TRAIN, "--grad-accum", "2", processes=1)
    psutil.Process(alone.pid).cpu_affinity([min(os.sched_getaffinity(0))])  # a thread, as each of the two had
    out, err = alone.communicate(timeout=200)
    assert alone.returncode == 0, err
    for actual, expected in zip(losses(single_process_run[1]), losses(out), strict=True):
        assert actual == [pytest.approx(pair, abs=1e-4) for pair in expected]


def trained_to_step(step: int, process: "subprocess.Popen[str]", checkpoints: Path) -> list[psutil.Process]:
    """Wait for a checkpoint of that step or a later one; the processes of the launch."""
    until = time.monotonic() + 100
    while max(checkpoints.glob("step-*.safetensors"), default=checkpoints).name < f"step-{step:08d}":
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.01)
    return psutil.Process(process.pid).children(recursive=True)


def kill(process: "subprocess.Popen[str]") -> None:
    """All at once, without a word."""
    launcher = psutil.Process(process.pid)
    for child in (*launcher.children(recursive=True), launcher):
        child.kill()


def ctrl_c(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("stop", [ctrl_c, kill])
def test_stopped_it_goes_on_to_the_same_losses(
    single_process_run: tuple[Path, str, str],
    checkpoint: Path,
    tmp_path: Path,
    stop: Callable[["subprocess.Popen[str]"], None],
) -> None:
    root = workspace(tmp_path / "ws", checkpoint)
    process = start(root, *TRAIN)
    ranks = trained_to_step(12, process, root / "runs" / "run" / "personas" / "so" / "checkpoints")
    stop(process)
    _, err = process.communicate(timeout=60)
    assert psutil.wait_procs(ranks, timeout=40)[1] == [], "a process is left"
    assert process.returncode != 0
    assert not (root / "adapters" / "so").exists()
    if stop is ctrl_c:
        assert err.count("agentlab runs resume run") == 1
        assert json.loads((root / "runs" / "run" / "manifest.json").read_text())["status"] == "interrupted"
    resumed = start(root, "train-persona", "--resume", "run", "--json")
    out, err = resumed.communicate(timeout=200)
    assert resumed.returncode == 0, err
    assert losses(out) == losses(single_process_run[1])


def test_without_their_launcher_they_stop(checkpoint: Path, tmp_path: Path) -> None:
    root = workspace(tmp_path / "ws", checkpoint)
    process = start(root, *TRAIN, "--epochs", "200")
    ranks = trained_to_step(60, process, root / "runs" / "run" / "personas" / "so" / "checkpoints")
    process.kill()
    process.communicate(timeout=100)
    assert psutil.wait_procs(ranks, timeout=40)[1] == [], "a process is left"
    assert json.loads((root / "runs" / "run" / "manifest.json").read_text())["status"] == "interrupted"


def test_wrong_data_is_told_once_and_nothing_is_written(checkpoint: Path, tmp_path: Path) -> None:
    root = workspace(tmp_path / "ws", checkpoint)
    (root / "so.jsonl").write_text("nonsense\n")
    process = start(root, *TRAIN)
    out, err = process.communicate(timeout=100)
    assert process.returncode != 0
    assert json.loads(out)["error"]["exit_code"] == 2
    assert err.count("cannot be used for training") == 1
    assert not (root / "runs").exists()
