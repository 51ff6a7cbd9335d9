"""How a run is started and gone on with: precedence of options, budgets, and hints that can be typed."""

import json
from collections.abc import Callable
from pathlib import Path
from shlex import split

import pytest

from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from tests.cli.conftest import TINY, Answer

pytestmark = pytest.mark.usefixtures("undrawn")

Call = Callable[..., Answer]


@pytest.mark.parametrize(
    ("words", "trials"),
    [
        (("--max-iterations", "5", "--set", "max_iterations=7"), 7),
        (("--set", "max_iterations=7", "--max-iterations", "5"), 5),
        (("--max-iterations=5", "--set=max_iterations=7", "--max-iterations=6"), 6),
        (("--set", "seed=1", "--max-iterations", "5", "--set", "max_iterations=7"), 7),
    ],
)
def test_options_count_from_left_to_right(agentlab: Call, words: tuple[str, ...], trials: int) -> None:
    plan = agentlab("nas", "demo", "--set", "llm=none", *words, "--dry-run", "--json").json["result"]
    assert plan["trials"] == trials


def test_a_spending_limit_outlives_the_model_chosen_behind_it(agentlab: Call) -> None:
    plan = agentlab("nas", "demo", "--max-cost", "0.25", "--set", "llm=scripted", "--dry-run", "--json")
    assert plan.json["result"]["max_cost_usd"] == 0.25


def test_to_ask_needs_somebody_to_answer(agentlab: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)  # what Python makes of a closed one
    refused = agentlab("nas", "demo", "--approve", *TINY)
    assert (refused.code, "standard input, which is closed" in refused.err) == (2, True)
    assert list(workspace.iterdir()) == []


def test_a_dry_run_touches_nothing(agentlab: Call, workspace: Path) -> None:
    assert agentlab("nas", "demo", "--dry-run", "--runs-dir", "elsewhere", *TINY).code == 0
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize("name", ["last", "../x", ".hidden", "x" * 81, "a b", "", "taken"])
def test_a_dry_run_refuses_the_names_that_a_run_refuses(agentlab: Call, workspace: Path, name: str) -> None:
    (workspace / "runs" / "taken").mkdir(parents=True)
    answers = [agentlab("nas", "demo", f"--run-name={name}", *TINY, *flags) for flags in ((), ("--dry-run",))]
    assert answers[0] == answers[1]
    assert answers[0].code == 2
    assert [path.name for path in (workspace / "runs").iterdir()] == ["taken"]


def test_of_runs_that_take_one_name_at_once_one_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentlab.errors import UsageError
    from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec

    rename = Path.rename

    def raced(self: Path, target: Path) -> Path:
        """Another process comes first."""
        monkeypatch.setattr(Path, "rename", rename)
        OpenRun.create(tmp_path, RunSpec("nas", "", "", "h", 0, name="mine"), RunEnvironment()).close()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", raced)
    with pytest.raises(UsageError, match="There is already a run named mine"):
        OpenRun.create(tmp_path, RunSpec("nas", "", "", "h", 0, name="mine"), RunEnvironment())
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_resuming_a_complete_run(agentlab: Call, workspace: Path) -> None:
    """Without a larger budget its result is printed and nothing is written; with one it goes on."""
    assert agentlab("nas", "demo", "--run-name", "mine", "--max-iterations", "2", *TINY).code == 0
    run = workspace / "runs" / "mine"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for words in ((), ("--max-iterations", "2"), ("--max-iterations", "1")):
        answer = agentlab("nas", "--resume", "mine", "--json", *words)
        assert answer.code == 0, answer.err
        assert len(answer.json["result"]["trials"]) == 2
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    refused = agentlab("nas", "--resume", "mine", "--run-name", "other")
    assert (refused.code, "--run-name" in refused.err) == (2, True)
    assert len(agentlab("runs", "resume", "mine", "--set", "max_iterations=3", "--json").json["result"]["trials"]) == 3


def test_hints_keep_the_folder_of_the_runs(agentlab: Call, workspace: Path) -> None:
    folder = workspace / "my runs"
    done = agentlab("nas", "demo", "--runs-dir", "my runs", "--run-name", "mine", "--max-iterations", "1", *TINY)
    hint = next(line for line in done.err.splitlines() if line.startswith("hint: agentlab runs show"))
    words = split(hint.removeprefix("hint: agentlab ").partition("  (")[0])
    assert agentlab(*words).code == 0
    manifest = json.loads((folder / "mine" / "manifest.json").read_text())
    (folder / "mine" / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    answer = agentlab("runs", "show", "mine", "--runs-dir", "my runs")
    assert split(answer.err.strip().removeprefix("hint: agentlab ")) == [
        "runs", "resume", "mine", "--runs-dir", str(folder)
    ]  # fmt: skip


def test_a_model_path_starts_at_the_current_folder(
    agentlab: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "here").mkdir()
    (workspace / "here" / "own.gguf").write_bytes(b"")
    monkeypatch.chdir(workspace / "here")
    assert agentlab("models", "path", "./own.gguf").out == f"{workspace / 'here' / 'own.gguf'}\n"


def test_removing_needs_a_yes(agentlab: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace / "models").mkdir()
    (workspace / "models" / "own.gguf").write_bytes(b"")
    OpenRun.create(workspace / "runs", RunSpec("nas", "", "", "h", 0, name="mine"), RunEnvironment()).close()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    for words in (("runs", "rm", "mine"), ("models", "rm", "own")):
        answer = agentlab(*words)
        assert (answer.code, answer.err) == (1, "error: Nothing was removed.\n")
    assert (workspace / "runs" / "mine").exists()
    assert agentlab("runs", "rm", "mine", "mine", "--yes").code == 0
