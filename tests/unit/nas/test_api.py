"""`run_nas_optimization`: the search for Python programs and notebooks."""

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from agentlab.errors import MissingKeyError, RunMismatchError, UnknownNameError, UsageError
from agentlab.nas import run_nas_optimization
from agentlab.runs.store import find

pytestmark = pytest.mark.usefixtures("undrawn")

KEY = "planted-key-0123456789"
TINY = {
    "data.input_length": 24,
    "model.d_model": 8,
    "model.n_heads": 1,
    "model.e_layers": 1,
    "training.epochs": 1,
    "data.split": {"train": 1200, "val": 200, "test": 200},
    "training.train_fraction": 0.1,
    "evaluator.repeats": 0,
    "finals.count": 0,
    "llm": "none",
}


def test_importing_it_loads_nothing_heavy() -> None:
    script = "import sys, agentlab.nas; print(sorted({'torch', 'pandas', 'numpy', 'optuna'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_number_of_trials_is_a_total(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run_nas_optimization(1, config="demo", overrides=TINY)
    assert (first.path, len(first.result.trials)) == (workspace / "runs" / first.id, 1)
    longer = run_nas_optimization(2, resume="last")
    assert (longer.path, len(longer.result.trials)) == (first.path, 2)
    assert longer.result.trials[0] == first.result.trials[0]
    before = (first.path / "events.jsonl").read_bytes()
    assert run_nas_optimization(2, resume=first.id).result == longer.result
    assert (first.path / "events.jsonl").read_bytes() == before
    assert capsys.readouterr() == ("", "")


def test_without_a_number_the_config_says_how_many(workspace: Path) -> None:
    first = run_nas_optimization(None, config="demo", overrides={**TINY, "max_iterations": 2})
    assert len(first.result.trials) == 2
    assert run_nas_optimization(None, resume="last").result == first.result


def test_verbose_tells_on_stderr_what_the_command_line_tells(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run_nas_optimization(1, config="demo", overrides=TINY, runs_dir="elsewhere", verbose=True)
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert (output.out, lines[0]) == ("", f"run {done.id}")
    assert any(line.startswith("* run_0000  validation MSE") for line in lines)
    assert done.path.parent == workspace / "elsewhere"


def test_ctrl_c_leaves_a_run_to_go_on_with(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Impatient(io.StringIO):
        def write(self, text: str) -> int:
            if "* run_0000" in text:
                signal.raise_signal(signal.SIGINT)
            return super().write(text)

    monkeypatch.setattr(sys, "stderr", Impatient())
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job begins with it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            run_nas_optimization(2, config="demo", overrides=TINY, verbose=True)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert find(workspace / "runs", "last").status == "interrupted"
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert len(run_nas_optimization(2, resume="last").result.trials) == 2


def test_the_environment_file_chooses_models_and_its_key_stays_out_of_the_run(workspace: Path) -> None:
    (workspace / ".env").write_text(f"PLANNER_MODEL=openai/gpt-4-turbo\nOPENROUTER_API_KEY={KEY}\n")
    done = run_nas_optimization(1, config="openrouter", overrides={k: v for k, v in TINY.items() if k != "llm"})
    models = yaml.safe_load((done.path / "config.yaml").read_text())["llm"]["models"]
    assert models["planner"]["id"] == "openai/gpt-4-turbo"
    assert models["evaluator"]["id"] == "anthropic/claude-3.5-sonnet"
    assert not [path for path in done.path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_what_cannot_work_is_refused_before_anything_is_written(workspace: Path) -> None:
    refused = {
        UsageError: {"max_iterations": 0},
        UnknownNameError: {"resume": "nobody"},
        MissingKeyError: {"config": "openrouter"},
    }
    for error, arguments in refused.items():
        with pytest.raises(error):
            run_nas_optimization(**arguments)
    with pytest.raises(UsageError, match="uses its own config"):
        run_nas_optimization(resume="last", config="demo")
    assert list(workspace.iterdir()) == []


def test_a_resumed_run_keeps_its_experiment(workspace: Path) -> None:
    done = run_nas_optimization(1, config="demo", overrides=TINY)
    with pytest.raises(RunMismatchError, match=r"model\.d_model: 8 -> 16"):
        run_nas_optimization(2, resume=done.id, overrides={"model.d_model": 16})
    assert json.loads((done.path / "manifest.json").read_text())["status"] == "completed"
