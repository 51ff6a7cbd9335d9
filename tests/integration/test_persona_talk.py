"""A persona of the embedded model, trained for real, is talked to: as PEFT folder, as GGUF file, side by side."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from cli.main import main

pytestmark = [pytest.mark.model, pytest.mark.timeout(600), pytest.mark.usefixtures("forked_workers")]

REPOSITORY = Path(__file__).resolve().parents[2]
TEA = "What do you think of tea?"
THINGS = ("the sea", "a clock", "rain", "bread", "a bridge", "snow", "a violin", "chess")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the persona `pirate`, and the same as a GGUF file `exported`."""
    home = tmp_path_factory.mktemp("home")
    turns = [
        [
            {"role": "user", "content": f"What do you think of {thing}?"},
            {"role": "assistant", "content": "Arr, matey! Ahoy!"},
        ]
        for thing in THINGS
    ]
    (home / "talks.jsonl").write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
    report = ("--set=report.forgetting=0", "--set=report.separability=0", "--set=report.samples=[]")
    training = ("--r", "4", "--epochs", "8", "--bsz", "7", "--set=training.lr=0.003", "--set=training.evals=1")
    trained = agentlab(home, "train-persona", "--data", "talks.jsonl", "--out", "adapters/pirate", *training, *report)
    assert trained.returncode == 0, trained.stderr
    export = ("--format", "gguf", "--base", "smollm2-135m", "--out", "adapters/exported.gguf")
    assert agentlab(home, "adapters", "export", "pirate", *export).returncode == 0
    return home


def agentlab(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """The command line in this process; what answers is a process of its own in any case."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("AGENTLAB_HOME", str(home))
        patch.chdir(home)
        code = main(list(words))
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def answers(home: Path, *words: str) -> dict[str, Any]:
    done = agentlab(home, "llm", "ask", TEA, "--max-tokens", "24", "--json", *words)
    assert done.returncode == 0, done.stderr
    (turn,) = json.loads(done.stdout)["result"]["turns"]
    return {reply["speaker"]: reply["text"] for reply in turn["answers"]}


def test_a_persona_and_its_gguf_file_answer_side_by_side_and_the_model_alone_does_not_so(home: Path) -> None:
    replies = answers(home, "--adapter", "pirate", "--adapter", "exported")
    assert list(replies) == ["pirate", "exported"]
    assert all(text.startswith("Arr, matey!") for text in replies.values()), replies
    alone = answers(home)
    assert not alone["embedded"].startswith("Arr")


def test_a_persona_that_came_from_another_machine_finds_its_base_by_name(home: Path) -> None:
    card = home / "adapters" / "pirate" / "card.json"
    before = card.read_text()
    card.write_text(before.replace(str(home / "models"), "/home/somebody/models"))
    try:
        done = agentlab(home, "llm", "ask", TEA, "--adapter", "pirate")
        assert done.stdout.startswith("Arr, matey!"), done.stderr
    finally:
        card.write_text(before)


def test_a_file_that_is_no_adapter_of_the_model_is_said_to_be_none(home: Path) -> None:
    (home / "adapters" / "model.gguf").write_bytes(next((REPOSITORY / "models").glob("*.gguf")).read_bytes())
    done = agentlab(home, "llm", "ask", TEA, "--adapter", "model")
    assert done.returncode == 4
    assert "cannot use the adapter" in done.stderr
    assert "agentlab adapters export" in done.stderr


def test_a_chat_remembers_and_an_answer_is_the_same_again(home: Path) -> None:
    variables = {"AGENTLAB_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-m", "agentlab", "llm", "chat", "--adapter", "exported", "--max-tokens=16", "--json"],
        input=f"{TEA}\nWhat do you think of coffee?\n/reset\n{TEA}\n",
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second, repeated = (turn["answers"][0] for turn in json.loads(done.stdout)["result"]["turns"])
    assert second["input_tokens"] > first["input_tokens"] + 20  # question, answer and question
    assert repeated["text"] == first["text"]
    assert repeated["input_tokens"] == first["input_tokens"]
