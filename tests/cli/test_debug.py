"""What a run tells those who ask for more: -v and --debug."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.launch import launch
from cli.options import CommonOptions
from cli.screen import Screen
from tests.cli.conftest import TINY, Answer, echoing

pytestmark = pytest.mark.usefixtures("undrawn")

Call = Callable[..., Answer]
KEY = "planted-key-0123456789"


def files(run: Path) -> str:
    return "\n".join(path.read_text() for path in run.rglob("*") if path.suffix in (".txt", ".jsonl", ".json", ".yaml"))


def test_verbose_adds_epochs_and_calls(agentlab: Call, workspace: Path) -> None:
    plain = agentlab("nas", "demo", "--run-name", "plain", *TINY)
    verbose = agentlab("nas", "demo", "--run-name", "told", "-v", *TINY)
    assert plain.code == verbose.code == 0
    lines = [
        line for line in verbose.err.splitlines() if not line.lstrip().startswith("... ")
    ]  # progress, as the clock has it
    added = [line for line in lines if line.replace("told", "plain") not in plain.err.splitlines()]
    epochs = [line for line in added if " epoch 1: training loss " in line and ", validation MSE " in line]
    calls = [line for line in added if ": scripted answered, " in line]
    call_count = (workspace / "runs" / "told" / "events.jsonl").read_text().count('"type":"llm.called"')
    trained = (workspace / "runs" / "told" / "events.jsonl").read_text().count('"type":"trial.epoch"')
    assert (len(epochs), len(calls)) == (trained, call_count)
    assert call_count >= 1
    assert set(added) == {*epochs, *calls}


def test_debug_shows_prompts_answers_and_differences_but_no_key(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server repeats its key; neither the log, nor the screen, nor the run keeps it."""
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    with echoing(f"your key: {KEY}") as url:
        _debugged(url)
    captured = capsys.readouterr()
    run = workspace / "runs" / "mine"
    log = (run / "log.txt").read_text()
    for text in (log, captured.err):
        assert "asking far (far), temperature 0" in text
        assert "[user]\n" in text
        assert "your key: [redacted]" in text
        assert "SchemaError" in text
        assert "changes to the best so far:" in text
        assert "proposed by default" in text
    assert KEY not in captured.out + captured.err + files(run)
    assert "[user]" not in (run / "events.jsonl").read_text()


def _debugged(url: str) -> None:
    """A search with --debug, whose language model is there."""
    provider = {"kind": "openai_compat", "base_url": url, "api_key": "${OPENROUTER_API_KEY}"}
    llm = {
        "providers": {"server": provider},
        "models": {"far": {"provider": "server", "id": "far", "tier": "full"}},
        "roles": {"primary": ["far"]},
    }
    sets = [*(word.removeprefix("--set=") for word in TINY), f"llm={json.dumps(llm)}"]
    common = CommonOptions(
        preset="demo",
        sets=sets,
        dry_run=False,
        resume=None,
        run_name="mine",
        runs_dir=None,
        seed=None,
        max_cost=None,
        control=None,
        order=["set_"] * len(sets),
    )
    screen = Screen()
    screen.debug = True
    launch("nas", common, common.overrides(), screen)


def test_without_debug_no_prompt_is_kept(agentlab: Call, workspace: Path) -> None:
    answer = agentlab("nas", "demo", "--run-name", "mine", "--max-iterations", "3", *TINY)
    assert "[user]" not in answer.err + files(workspace / "runs" / "mine")
