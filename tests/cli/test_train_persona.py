"""`agentlab train-persona` from the outside, on a tiny random base: the seed's flags, the adapter, and wrong input."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Answer
from tests.unit.train.tiny_base import tiny_checkpoint
from tests.zygote import Forked

Call = Callable[..., Answer]
REPOSITORY = Path(__file__).resolve().parents[2]
SHORT = (
    "--set=training.max_length=128",
    "--set=training.precision=fp32",
    "--set=training.lr=0.02",
    "--set=report.forgetting=0",
    "--set=report.sample_tokens=4",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture
def base(checkpoint: Path, workspace: Path) -> Path:
    """The tiny base, in the workspace's models folder."""
    (workspace / "models").mkdir()
    (workspace / "models" / "tiny").symlink_to(checkpoint)
    return checkpoint


def talks(name: str, count: int = 12, word: str = "so") -> str:
    lines = []
    for n in range(count):
        turns = [{"role": "user", "content": f"Why {n}?"}, {"role": "assistant", "content": f"{word} {n} " * 2}]
        lines.append(json.dumps({"messages": turns}))
    Path(name).write_text("\n".join(lines) + "\n")
    return name


@pytest.mark.usefixtures("base")
def test_the_seed_s_flags_make_an_adapter(agentlab: Call, workspace: Path) -> None:
    answer = agentlab(
        "train-persona",
        *("--data", talks("a.jsonl"), "--out", "adapters/persona_a", "--base", "tiny"),
        *("--r", 4, "--epochs", 8, "--bsz", 4, "--grad_accum", 2, *SHORT, "--json"),
    )
    assert answer.code == 0, answer.err
    folder = workspace / "adapters" / "persona_a"
    names = {"adapter_config.json", "adapter_model.safetensors", "card.json", "README.md"}
    assert {path.name for path in folder.iterdir()} == names
    card = json.loads((folder / "card.json").read_text())
    (row,) = answer.json["result"]["personas"]
    assert row["eval_loss"] < row["before"]
    assert card["metrics"]["eval_loss"] == row["eval_loss"]
    assert card["lora"]["r"] == 4
    assert card["training"]["grad_accum"] == 2
    report = Path(answer.json["run"]["path"]) / "report.html"
    assert "Sample answers" in report.read_text()
    listed = agentlab("adapters", "list", "--json").json["result"]["adapters"]
    assert [adapter["name"] for adapter in listed] == ["persona_a"]


@pytest.mark.usefixtures("base")
def test_three_personas_are_told_apart(agentlab: Call, workspace: Path) -> None:
    personas = [{"name": word, "data": talks(f"{word}.jsonl", word=word)} for word in ("yes", "no", "maybe")]
    for together in ("false", "true"):
        answer = agentlab(
            "train-persona",
            "./three.yaml" if _config(personas) else "",
            *("--epochs", 6, "--bsz", 4, "--r", 4, *SHORT, f"--set=together={together}"),
            *("--run-name", f"together-{together}", "--json"),
        )
        assert answer.code == 0, answer.err
        result = answer.json["result"]
        assert result["separability"]["value"] > result["chance"]
        assert set(result["samples"][0]["personas"]) == {"yes", "no", "maybe"}
        for name in ("yes", "no", "maybe"):
            (workspace / "adapters" / name).rename(workspace / f"{name}-{together}")


def _config(personas: list[dict[str, str]]) -> bool:
    Path("three.yaml").write_text(json.dumps({"base": "tiny", "personas": personas}))
    return True


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize("flags", [["--epochs", 1], ["--check"], ["--dry-run"]])
def test_a_folder_that_is_there_is_not_overwritten(agentlab: Call, workspace: Path, flags: list[object]) -> None:
    (workspace / "adapters" / "a").mkdir(parents=True)
    answer = agentlab("train-persona", "--data", talks("a.jsonl"), "--base", "tiny", *flags)
    assert answer.code == 2
    assert "already exists" in answer.err
    assert "rm " not in answer.err
    assert not Path("runs").exists()


@pytest.mark.usefixtures("base")
def test_a_place_is_taken_at_the_start(agentlab: Call, workspace: Path) -> None:
    flags = ["--data", talks("a.jsonl"), "--base", "tiny", "--out", "mine", *SHORT]
    process = started(workspace, *flags, "--epochs", "500", "--run-name", "first")
    wait_for(process, workspace / "runs" / "first" / "events.jsonl", "threads.chosen")
    for extra_flags in ([], ["--check"]):
        answer = agentlab("train-persona", *flags, *extra_flags)
        assert answer.code == 2
        assert "Another run is training the adapter" in answer.err
    process.kill()
    process.communicate()
    assert [folder.name for folder in (workspace / "runs").iterdir()] == ["first"]
    assert agentlab("train-persona", *flags, "--epochs", 1, "--set=report.samples=[]").code == 0  # a kill gave it back
    resumed = agentlab("train-persona", "--resume", "first")
    assert resumed.code == 2
    assert "already exists" in resumed.err


@pytest.mark.usefixtures("base")
def test_a_place_that_cannot_be_written_to_is_told_before_a_run_begins(agentlab: Call) -> None:
    talks("a.jsonl")
    Path("x.yaml").write_text(json.dumps({"base": "tiny", "personas": [{"name": "a", "data": "a.jsonl"}]}))
    answer = agentlab("train-persona", "./x.yaml", f"--set=out={'x' * 255}", *SHORT)
    assert answer.code == 2  # the name is what is wrong, not the disk
    assert "cannot be created" in answer.err
    assert not Path("runs").exists()


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize("out", ["a.jsonl/sub", "dangling"])
def test_a_place_that_cannot_be_is_refused_before_the_training(agentlab: Call, out: str) -> None:
    Path("dangling").symlink_to("nowhere")
    answer = agentlab("train-persona", "--data", talks("a.jsonl"), "--base", "tiny", "--out", out)
    assert answer.code == 2
    assert "--out" in answer.err
    assert not Path("runs").exists()


@pytest.mark.usefixtures("base")
def test_check_looks_and_trains_nothing(agentlab: Call) -> None:
    answer = agentlab("train-persona", "--data", talks("a.jsonl"), "--base", "tiny", "--check")
    assert answer.code == 0, answer.err
    assert "trained tokens" in answer.out
    assert "an adapter learns little from fewer than 50" in answer.out
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("not json", ["a.jsonl:1", "not JSON"]),
        ('{"messages": []}', ["a.jsonl:1"]),
        ('{"messages": [{"role": "bot", "content": "x"}]}', ["a.jsonl:1", "bot"]),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', ["a.jsonl:1"]),
        ('{"messages": [{"role": "user", "content": "x"}]}', ["a.jsonl:1"]),
        ('{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "x"}]}', ["empty"]),
        (
            json.dumps(
                {"messages": [{"role": "user", "content": "x" * 400}, {"role": "assistant", "content": "y" * 400}]}
            ),
            ["a.jsonl:1", "128"],
        ),
    ],
)
@pytest.mark.usefixtures("base")
def test_bad_conversations_are_named_by_line(agentlab: Call, line: str, words: list[str]) -> None:
    Path("a.jsonl").write_text(line + "\n")
    answer = agentlab("train-persona", "--data", "a.jsonl", "--base", "tiny", "--check", *SHORT)
    assert answer.code == 2, answer.err
    for word in words:
        assert word in answer.err


@pytest.mark.parametrize(
    ("flags", "code", "word"),
    [
        (["--data", "absent.jsonl", "--base", "tiny"], 3, "absent.jsonl"),
        (["--base", "nowhere"], 2, "nowhere"),
        (["--out", "x"], 2, "--data"),
        (["--set", "lora.rank=3"], 2, "lora.r"),
        (["--set", "training.precision=fp64"], 2, "fp64"),
        (["--base", "broken", "--dry-run"], 1, "broken.gguf"),
    ],
)
@pytest.mark.usefixtures("base")
def test_wrong_input(agentlab: Call, flags: list[str], code: int, word: str) -> None:
    Path("models", "broken.gguf").write_bytes(b"GGUF\0\0\0\3" + bytes(16))
    answer = agentlab("train-persona", *flags)
    assert answer.code == code, answer.err
    assert word in answer.err
    assert not Path("runs").exists()


def started(workspace: Path, *flags: str) -> subprocess.Popen[str]:
    return Forked(
        [sys.executable, "-m", "agentlab", "train-persona", *flags],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], file: Path, words: str, times: int = 1) -> None:
    deadline = time.monotonic() + 120
    while not file.exists() or file.read_text().count(words) < times:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.usefixtures("base")
def test_killed_and_resumed_it_ends_in_the_same_bits(agentlab: Call, workspace: Path) -> None:
    flags = ["--data", talks("a.jsonl", 24), "--base", "tiny", "--r", "4", "--epochs", "16", "--bsz", "2", *SHORT]
    uninterrupted = agentlab("train-persona", *flags, "--out", "whole", "--json")
    assert uninterrupted.code == 0, uninterrupted.err
    process = started(workspace, *flags, "--out", "killed", "--run-name", "killed")
    wait_for(process, workspace / "runs" / "killed" / "events.jsonl", "train.eval", 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    resumed = agentlab("train-persona", "--resume", "killed", "--json")
    assert resumed.code == 0, resumed.err
    weights = [(workspace / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]


@pytest.mark.usefixtures("base")
def test_threads_are_as_the_variable_says_and_as_they_were_on_a_resume(
    agentlab: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from agentlab.persona import run

    counts, tell_progress = [], run._tell_progress
    monkeypatch.setattr(
        run, "_tell_progress", lambda *args: (counts.append(torch.get_num_threads()), tell_progress(*args))
    )
    flags = ("--data", talks("a.jsonl"), "--base", "tiny", "--bsz", 8, *SHORT, "--set=report.samples=[]")
    before = torch.get_num_threads()
    for variable, words, expected in (
        ("3", (*flags, "--epochs", 1, "--run-name", "begun"), 3),
        ("2", ("--resume", "begun", "--set", "training.epochs=2"), 3),
        ("2", ("--resume", "begun", "--set", "training.epochs=3", "--set", "threads=4"), 4),
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
        counts.clear()
        answer = agentlab("train-persona", *words)
        assert answer.code == 0, answer.err
        assert set(counts) == {expected}
    assert torch.get_num_threads() == before


@pytest.mark.usefixtures("base")
def test_stopped_while_it_measures_it_measures_again_with_the_file_it_began_with(
    agentlab: Call, workspace: Path
) -> None:
    """The file that is learnt from is read once: what becomes of it meanwhile changes nothing, but on a resume."""
    data = Path(talks("a.jsonl")).absolute()
    content, run = data.read_bytes(), workspace / "runs" / "stopped"
    flags = ["--data", "a.jsonl", "--base", "tiny", "--r", "4", "--epochs", "1", *SHORT, "--set=report.forgetting=60"]
    process = started(workspace, *flags, "--run-name", "stopped")
    wait_for(process, run / "events.jsonl", "data.checked")
    data.write_text("another\n")
    wait_for(process, run / "stream.jsonl", "the base task")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert not (workspace / "adapters" / "a").exists()
    talks("a.jsonl", 13)
    refused = agentlab("train-persona", "--resume", "stopped")
    assert refused.code == 2
    assert "Restore the file" in refused.err
    data.write_bytes(content)
    assert agentlab("train-persona", "--resume", "stopped").code == 0
    card = json.loads((workspace / "adapters" / "a" / "card.json").read_text())
    assert card["data"]["sha256"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
