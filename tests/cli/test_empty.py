"""An empty argument is a shell variable that is not set: nothing begins for it, whatever it stands for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentlab.commands import COMMANDS
from agentlab.errors import UnknownNameError, UsageError
from agentlab.session import run_to_its_end

Call = Callable[..., Any]

SUBCOMMANDS = (
    "nas train",
    "nas predict",
    "llm-bench check",
    "llm-bench quality",
    "pipeline plan",
    "pipeline validate",
    "pipeline rerun",
    "pipeline why",
    "debate replay",
    "evolve export",
    "compress plan",
    "compress memory query",
    "llm show",
    "llm ask",
    "serve",
    "init",
    "adapters show",
    "models path",
    "models rm",
    "models import",
    "configs show",
    "configs validate",
    "runs show",
    "runs rm",
    "runs mlflow log",
)
FLAGS = (
    "--resume",
    "--run-name",
    "--runs-dir",
    "--set",
    "--seed",
    "--control",
    "--max-cost",
    "--base",
    "--out",
    "--data",
    "--text",
    "--models",
    "--pipeline",
    "--input-file",
    "--adapter",
    "--questions",
    "--workspace-dir",
    "--model",
    "--tag",
)


@pytest.mark.parametrize("empty", ["", "  ", "\t\n"])
@pytest.mark.parametrize("command", [*COMMANDS, *SUBCOMMANDS])
def test_an_empty_word_begins_nothing(agentlab: Call, workspace: Path, command: str, empty: str) -> None:
    for words in ((empty,), ("--", empty), ("--json", empty), (empty, "--dry-run")):
        answer = agentlab(*command.split(), *words)
        assert (answer.code, "is empty" in answer.err + answer.out) == (2, True), words
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_flag_begins_nothing(agentlab: Call, workspace: Path, command: str, flag: str) -> None:
    for words in ((flag, ""), (f"{flag}=",), (f"{flag}= ",)):
        answer = agentlab(command, *words)
        assert (answer.code, f"after {flag} is empty" in answer.err) == (2, True), words
    assert list(workspace.iterdir()) == []


def test_a_persona_may_be_asked_without_a_system_message(agentlab: Call) -> None:
    answer = agentlab("llm", "ask", "Why?", "--system", "", "--set", "llm=none")
    assert "is empty" not in answer.err


@pytest.mark.parametrize("command", COMMANDS)
def test_from_python_an_empty_name_is_no_default(workspace: Path, command: str) -> None:
    with pytest.raises(UsageError):
        run_to_its_end(command, None, "", {}, None, "test", verbose=False)
    with pytest.raises(UnknownNameError):
        run_to_its_end(command, "", None, {}, None, "test", verbose=False)
    assert list(workspace.iterdir()) == []
