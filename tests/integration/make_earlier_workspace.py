"""Makes `tests/data/earlier`: a workspace with two runs of every command, a complete one and one that was interrupted.

It is made once, by the version whose files are to be read for ever, and not again with a later one:

    python -m tests.integration.make_earlier_workspace tests/data/earlier

Bases are random checkpoints, language models are scripts, servers are the mock server: nothing is fetched. What a
clock, a path or a processor says is replaced by fixed values where it is no figure of the run. `answers.json` beside
the workspace holds what commands that only read say of it.
"""

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from agentlab.commands import COMMANDS
from agentlab.runs.events import Event
from agentlab.runs.journal import Journal
from cli.main import main
from tests.unit.debate.test_local_agents import made as make_base_and_adapters

EARLIER = Path(__file__).resolve().parents[1] / "data" / "earlier"
# Commands that only read, and say the same whenever they are asked.
READING = (
    "runs list",
    *(f"runs show {command}-{end}" for command in COMMANDS for end in ("complete", "interrupted")),
    "nas predict nas-complete --input series.csv",
    "adapters list",
    "adapters show calm",
    "compress memory list",
    "debate replay debate-complete --round 0 --vote borda",
    "pipeline history list",
    "pipeline history search scripted",
    "pipeline history show pipeline-complete",
    "pipeline tree",
    "pipeline diff pipeline-complete pipeline-interrupted",
    "pipeline why pipeline-complete final",
)
# Stands in every file for the folder that the workspace is copied to.
PLACE = "/earlier-workspace"
INTERRUPTED = 130  # exit code of a run that a signal has stopped
SPLIT = {"train": 160, "val": 40, "test": 40}
LOTTERY = {
    "providers": {"script": {"kind": "scripted", "mode": "random"}},
    "models": {name: {"provider": "script", "id": name, "tier": "full"} for name in ("ann", "bob", "cat")},
    "roles": {"primary": ["ann"], "reserve": ["bob", "cat"]},
    "ledger": {"enabled": False},
}
CONFIGS: dict[str, dict[str, Any]] = {
    "nas": {
        "llm": LOTTERY,
        "max_iterations": 3,
        "data": {"path": "series.csv", "horizon": 4, "input_length": 12, "batch_size": 16, "split": SPLIT},
        "model": {"d_model": 8, "n_heads": 2, "e_layers": 1},
        "training": {"epochs": 1, "optimizer_params": {"lr": 0.005}},
        "evaluator": {"repeats": 1},
        "finals": {"count": 1, "seeds": 2, "train_fraction": 1.0},
        "space": {
            "model.d_model": {"type": "categorical", "choices": [4, 8]},
            "training.optimizer_params.lr": {"type": "float", "low": 0.0005, "high": 0.02, "log": True},
        },
    },
    "train-persona": {
        "base": "Llama",
        "personas": [{"name": "calm", "data": "talks.jsonl"}],
        "lora": {"r": 2},
        "training": {
            "epochs": 2,
            "batch_size": 4,
            "lr": 0.02,
            "max_length": 128,
            "precision": "fp32",
            "evals": 2,
        },
        "report": {"separability": 0, "forgetting": 0, "samples": ["Why?"], "sample_tokens": 4},
    },
    "debate": {
        "llm": LOTTERY,
        "agents": [{"name": name, "model": name} for name in ("ann", "bob", "cat")],
        "questions": {"file": "quiz.jsonl", "count": 6, "dev": 0.34},
        "protocol": {"rounds": 1},
        "rows": 3,
    },
    "evolve": {
        "base": "Llama",
        "parents": ["one", "two"],
        "tasks": {"file": "quiz.jsonl", "train": 8, "test": 8},
        "population": 5,
        "race": {"first": 8},
        "max_items": 88,
        "algorithm": "one-plus-lambda",
        "threads": 1,
    },
    "compress": {
        "base": "Llama",
        "text": {"file": "text.txt", "length": 32, "calibration": 4, "held_out": 2},
        "goal": "smallest with kl < 0.5",
        "portfolio": [
            {"quantizer": "rtn", "quantization_bits": 8, "group": 16},
            {"quantizer": "rtn", "quantization_bits": 4, "group": 16},
        ],
        "first": 2,
        "beside": [],
        "budget": {"trials": 2},
        "threads": 1,
        "llm": "none",
    },
    "pipeline": {
        "llm": LOTTERY,
        "models": {name: {"provider": "router", "model": name} for name in ("ann", "bob")},
        "base_pipeline": {
            "stages": [
                {"id": "draft", "models": ["ann", "bob"], "aggregation": "concat"},
                {"id": "final", "model": "bob", "prompt": "Shorten: {{ input }}"},
            ]
        },
        "input": "Why is the sky blue?",
    },
    "llm-bench": {
        "llm": "none",
        "mock": ["ok-ttft5-itl1-n8"],
        "load": {"concurrency": [1, 2], "requests": 4, "warmup": 0, "ceiling_seconds": 0, "output_tokens": 8},
    },
}
# After which event a run is stopped: its type, and the how manieth of this type.
CUTS: dict[str, tuple[str, int]] = {
    "nas": ("trial.finished", 2),
    "train-persona": ("training.begun", 1),
    "debate": ("wave.finished", 1),
    "evolve": ("generation.finished", 1),
    "compress": ("base.measured", 1),
    "pipeline": ("stage.finished", 1),
    "llm-bench": ("stage.finished", 1),
}
# Derived from what is kept, or only for a reader: pictures, pages, words that were streamed, work that is done again.
LEFT_OUT = (
    *("report.html", "report.md", "*.svg", "lineage.*", "stream.jsonl", "log.txt", "lock"),
    *("exports", "compress", "best_model.safetensors", "last.safetensors"),
    "train-persona-complete/personas/*/checkpoints",
)
DEVICE = {"system": "Linux", "processor": "", "cores": 2, "memory_bytes": 1 << 33}


def make_workspace(root: Path) -> None:
    """The inputs in an empty folder, and in `runs` two runs of each command."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT has opinions on tiny models
        make_base_and_adapters("Llama", root, hidden_size=16, intermediate_size=32, head_dim=4)
    _write_inputs(root)
    for command in CONFIGS:
        (root / f"{command}.yaml").write_text(json.dumps(CONFIGS[command], indent=1) + "\n")
        words = (command, f"./{command}.yaml", "--run-name")
        with _interrupting(*CUTS[command]):
            end = run_command(root, *words, f"{command}-interrupted", *_list_changes(command))
        assert end.exit_code == INTERRUPTED, (command, end)
        end = run_command(root, *words, f"{command}-complete")
        assert end.exit_code == 0, (command, end)


def _list_changes(command: str) -> list[str]:
    """What keeps the two runs of a command apart: neither finds what the other has remembered, or its adapter."""
    changes = {"compress": ["--set", "remember=false"], "train-persona": ["--set", "personas.0.name=cool"]}
    return changes.get(command, [])


def _write_inputs(root: Path) -> None:
    generator = np.random.default_rng(0)
    hours = np.arange(240)
    values = np.sin(hours * 2 * np.pi / 24)[:, None] * [1, 2] + generator.normal(size=(240, 2)) * 0.1
    times = np.datetime64("2024-01-01T00:00:00") + hours * np.timedelta64(1, "h")
    rows = [
        f"{str(time).replace('T', ' ')},{po:.3f},{elbe:.3f}" for time, (po, elbe) in zip(times, values, strict=True)
    ]
    (root / "series.csv").write_text("\n".join(["date,po,elbe", *rows]) + "\n")
    quiz: list[str] = []
    for number in range(20):
        for kind in ("hue", "mood"):
            question = {"id": f"{kind}-{number}", "question": f"{kind} {number}?", "choices": ["red", "green", "blue"]}
            quiz.append(json.dumps({**question, "answer": "green"}))
    (root / "quiz.jsonl").write_text("\n".join(quiz) + "\n")
    talks: list[str] = []
    for number in range(12):
        message = {"role": "user", "content": f"Why {number}?"}
        talks.append(json.dumps({"messages": [message, {"role": "assistant", "content": f"so {number} " * 2}]}))
    (root / "talks.jsonl").write_text("\n".join(talks) + "\n")
    lines = [f"Line {number} of a text about the weather: it rains {number % 7} days a week." for number in range(60)]
    (root / "text.txt").write_text("\n\n".join(lines) + "\n")


class CommandEnd(NamedTuple):
    """How a command ended, and what it printed."""

    exit_code: int
    output: str
    errors: str


def run_command(root: Path, *words: str) -> CommandEnd:
    """Call `agentlab` in this process, with a workspace, as `--json` has it."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as output:
        patch.setenv("AGENTLAB_HOME", str(root))
        patch.setattr(sys, "argv", ["agentlab", *words])
        patch.chdir(root)
        with redirect_stderr(StringIO()) as errors:
            exit_code = main([*words, "--json"])
    return CommandEnd(exit_code, output.getvalue(), errors.getvalue())


@contextmanager
def _interrupting(event_type: str, count: int) -> Iterator[None]:
    """Ctrl-C, as soon as so many events of a type are written."""
    append, seen = Journal.append, 0

    def append_and_stop(journal: Journal, event: Event) -> None:
        nonlocal seen
        append(journal, event)
        seen += event.type == event_type
        if event.type == event_type and seen == count:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, Journal.append.__name__, append_and_stop)
        yield


def normalise(root: Path) -> None:
    """Take this machine and this day out of a workspace."""
    for pattern in LEFT_OUT:
        for path in [*(root / "runs").rglob(pattern), *(root / ".agentlab").glob(pattern)]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    for number, path in enumerate(sorted((root / "runs").rglob("manifest.json"))):  # lists go by the time
        manifest = json.loads(path.read_text())
        moments = {key: f"2026-01-01T00:{number:02d}:00Z" for key in ("created", "started", "ended") if manifest[key]}
        versions = {"agentlab": manifest["versions"]["agentlab"]}
        manifest |= {**moments, "resumed": [], "git": None, "versions": versions, "device": DEVICE, "seconds": 1.0}
        path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    for path in (root / "runs").rglob("events.jsonl"):
        path.write_text(re.sub(r'(?m)^(\{"v":1,"seq":(\d+),"t":)[\d.]+', r"\g<1>\g<2>.5", path.read_text()))
    move(root, str(root), PLACE)


def move(root: Path, old: str, new: str) -> None:
    """Write the new place of a workspace into all texts that name the old one."""
    for path in root.rglob("*"):
        if path.is_file() and old.encode() in (content := path.read_bytes()):
            path.write_bytes(content.replace(old.encode(), new.encode()))


def copy_workspace(earlier: Path, root: Path) -> None:
    """A workspace as it was, at another place."""
    shutil.copytree(earlier, root)
    move(root, PLACE, str(root))


def read_answers(root: Path) -> dict[str, Any]:
    """What the commands that only read say of a workspace, by the command."""
    answers: dict[str, Any] = {}
    for words in READING:
        end = run_command(root, *words.split())
        assert end.exit_code == 0, (words, end)
        answers[words] = json.loads(end.output.replace(str(root), PLACE))
    return answers


if __name__ == "__main__":
    target = Path(sys.argv[1]).absolute()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        if not (target / "workspace").exists():
            made = Path(folder) / "made"
            made.mkdir()
            make_workspace(made)
            normalise(made)
            shutil.copytree(made, target / "workspace")
        copy = Path(folder) / "copy"
        copy_workspace(target / "workspace", copy)
        lines = [f"{json.dumps(words)}: {json.dumps(answer)}" for words, answer in read_answers(copy).items()]
        (target / "answers.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
