"""`~` is the home folder wherever a path is typed: the shell leaves it in quotes and behind `--out=`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec

Call = Callable[..., Any]

READS = (
    ("models", "import", "~/absent.x"),
    ("models", "path", "~/absent.x"),
    ("adapters", "show", "~/absent.x"),
    ("adapters", "blend", "~/absent.x", "~/absent.x", "--out", "child"),
    ("nas", "~/absent.x"),
    ("nas", "--data=~/absent.x", "--dry-run"),
    ("nas", "--set=data.path=~/absent.x", "--dry-run"),
    ("nas", "predict", "~/absent.x", "--input", "~/absent.x"),
    ("train-persona", "--data=~/absent.x", "--check"),
    ("train-persona", "--base=~/absent.x", "--check"),
    ("debate", "--questions=~/absent.x", "--rounds=0"),
    ("debate", "--adapter=~/absent.x", "--rounds=0"),
    ("evolve", "--questions=~/absent.x", "--dry-run"),
    ("evolve", "--parent=~/absent.x", "--parent=~/absent.x", "--dry-run"),
    ("compress", "--base=~/absent.x", "--dry-run"),
    ("compress", "--text=~/absent.x", "--dry-run"),
    ("pipeline", "--models=~/absent.x", "--pipeline=~/absent.x"),
    ("pipeline", "--input-file=~/absent.x", "--dry-run"),
    ("pipeline", "--inputs=~/absent.x", "--dry-run"),
    ("pipeline", "validate", "--models=~/absent.x"),
    ("llm", "show", "~/absent.x"),
    ("llm", "ask", "Why?", "--model=~/absent.x"),
    ("llm-bench", "--set=load.tokenizer=~/absent.x", "--dry-run"),
    ("serve", "~/absent.x"),
    ("configs", "show", "nas", "~/absent.x"),
    ("configs", "validate", "~/nas/absent.x"),
)


@pytest.fixture
def user_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.mark.parametrize("words", READS, ids=" ".join)
def test_a_path_that_is_read(agentlab: Call, workspace: Path, user_home: Path, words: tuple[str, ...]) -> None:
    absent = agentlab(*words)
    assert absent.code in (2, 3), absent.err
    assert "/~" not in absent.err, absent.err
    unknown = agentlab(*(word.replace("~/", "~nosuchuser/") for word in words))
    assert unknown.code in (2, 3), unknown.err
    assert "/~" not in unknown.err, unknown.err
    assert list(workspace.iterdir()) == []


def test_runs_are_looked_for_there(agentlab: Call, user_home: Path) -> None:
    OpenRun.create(user_home / "runs", RunSpec("nas", "", "", "h", 0, name="mine"), RunEnvironment()).close()
    listed = agentlab("runs", "list", "--runs-dir=~/runs", "--json")
    assert [run["id"] for run in listed.json["result"]["runs"]] == ["mine"]
    assert agentlab("runs", "export", "mine", "--runs-dir=~/runs", "--out=~/mine.zip").code == 0
    assert (user_home / "mine.zip").is_file()


def test_a_workspace_is_made_there(agentlab: Call, workspace: Path, user_home: Path) -> None:
    assert agentlab("init", "~/lab").code == 0
    assert (user_home / "lab" / "configs").is_dir()
    assert list(workspace.iterdir()) == []


def test_a_path_in_a_config_starts_there(agentlab: Call, workspace: Path, user_home: Path) -> None:
    (workspace / "mine.yaml").write_text("extends: ~/other.yaml\n")
    (user_home / "other.yaml").write_text("data: {path: ~/absent.csv}\n")
    answer = agentlab("nas", "train", "mine.yaml", "--dry-run", "--json")
    assert (answer.code, str(user_home / "absent.csv") in json.dumps(answer.json["error"])) == (3, True)
