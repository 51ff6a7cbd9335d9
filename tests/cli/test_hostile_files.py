"""Every file that a command line names: whatever lies there, the command ends soon and says what is wrong with it."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Answer

Call = Callable[..., Answer]
NUMBER = "9" * 5000
CONTENTS = {
    "empty": b"",
    "numbers": f'{{"a": {NUMBER}, "messages": {NUMBER}, "input": {NUMBER}}}\n'.encode(),
    "deep": b"[" * 100_000,
    "binary": bytes(range(256)) * 8,
    "date,a": f"date,a\n2020-01-01,{NUMBER}\n".encode(),
    "list": b"[]\n",
}
# Where a name from outside stands in a command line.
LINES = {
    "nas CONFIG": ("nas", "{}", "--dry-run"),
    "nas --data": ("nas", "demo", "--dry-run", "--set=llm=none", "--data", "{}"),
    "nas llm": ("nas", "demo", "--dry-run", "--set=llm={}"),
    "nas predict": ("nas", "predict", "{}/", "--input", "{}"),
    "pipeline CONFIG": ("pipeline", "{}", "--dry-run"),
    "pipeline --models": ("pipeline", "--models", "{}", "--pipeline", "{}", "--dry-run"),
    "pipeline --input-file": ("pipeline", "demo", "--dry-run", "--input-file", "{}"),
    "pipeline --inputs": ("pipeline", "demo", "--dry-run", "--inputs", "{}"),
    "train-persona --data": ("train-persona", "--dry-run", "--data", "{}"),
    "llm show": ("llm", "show", "{}"),
    "llm-bench CONFIG": ("llm-bench", "{}", "--dry-run"),
    "configs validate": ("configs", "validate", "{}"),
    "adapters show": ("adapters", "show", "{}"),
    "adapters export": ("adapters", "export", "{}", "--base", "{}", "--out", "out.gguf"),
    "models import": ("models", "import", "{}", "--out", "out"),
    "models path": ("models", "path", "{}"),
    "runs list": ("runs", "list", "--runs-dir", "{}"),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_whatever_lies_there_the_command_ends_and_says_so(
    agentlab: Call, workspace: Path, line: tuple[str, ...]
) -> None:
    for name, content in CONTENTS.items():
        (workspace / name).write_bytes(content)
    os.mkfifo(workspace / "pipe")
    (workspace / "folder.yaml").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for name in (*CONTENTS, "pipe", "folder.yaml", "socket", "a\nb", "~nosuchuser/x", "x" * 300):
            answer = agentlab(*(word.replace("{}", name if name.startswith("~") else f"./{name}") for word in line))
            assert answer.code in (0, 1, 2, 3), (name, answer.err)
            assert answer.code == 0 or answer.err.count("error: ") == 1, (name, answer.err)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("file", ["manifest.json", "events.jsonl", "config.yaml", "result.json", "source.yaml", "lock"])
def test_a_run_folder_of_whatever_kind_is_listed_shown_and_removed(agentlab: Call, workspace: Path, file: str) -> None:
    from agentlab.runs.run import OpenRun, RunEnvironment, RunOutcome, RunSpec

    for number, kind in enumerate([*CONTENTS, "pipe", "folder"]):
        name = f"run{number}"
        with OpenRun.create(
            workspace / "runs", RunSpec("nas", "seed: 0\n", "", "h", 0, name=name), RunEnvironment()
        ) as run:
            run.write_json("result.json", {})
            run.complete(RunOutcome())
        path = workspace / "runs" / name / file
        path.unlink(missing_ok=True)
        if kind in CONTENTS:
            path.write_bytes(CONTENTS[kind])
        else:
            os.mkfifo(path) if kind == "pipe" else path.mkdir()
        lines = (
            ("list",),
            ("show", name),
            ("compare", name, name),
            ("resume", name),
            ("export", name, "--out", f"{name}.zip"),
        )
        for line in (*lines, ("rm", name, "--yes")):
            answer = agentlab("runs", *line)
            assert answer.code in (0, 1, 2, 3), (kind, line, answer.err)
        assert not (workspace / "runs" / name).exists()
