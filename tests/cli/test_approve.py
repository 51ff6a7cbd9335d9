"""`--approve`: a person says yes, no or something else to every proposal, on a terminal or through a pipe."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from cli.approve import edit
from tests.cli.conftest import Answer
from tests.zygote import Forked

PARAMS = {"model.d_model": 16, "model.dropout": 0.1, "training.optimizer_params.lr": 0.001}
TINY = (
    "nas",
    "demo",
    "--approve",
    "--set=llm=none",
    "--set=data.split={train: 1200, val: 200, test: 200}",
    "--set=training.train_fraction=0.1",
    "--set=finals.count=0",
    "--set=evaluator.repeats=0",
    "--max-iterations=3",
    "--run-name=mine",
)


Approved = Callable[..., Answer]


@pytest.fixture
def approved(agentlab: Callable[..., Answer], workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Approved:
    """Run a command with answers on its standard input."""

    def call(answers: str, *words: str) -> Answer:
        typed = workspace.parent / "typed"
        typed.write_text(answers)
        with typed.open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            return agentlab(*(words or TINY))

    return call


def events(workspace: Path, kind: str) -> list[dict[str, Any]]:
    lines = (workspace / "runs" / "mine" / "events.jsonl").read_text().splitlines()
    return [event for line in lines if (event := json.loads(line))["type"] == kind]


def test_yes_no_and_an_edit_are_heeded(workspace: Path) -> None:
    process = Forked(
        [sys.executable, "-m", "agentlab", *TINY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=workspace,
    )
    _, stderr = process.communicate("n\nmaybe\ne\nd_model=9000\ne\nd_model=8 n_heads=1\ny\n", timeout=120)
    assert process.returncode == 0, stderr
    assert "Please answer y, n or e" in stderr
    assert "Cannot try this" in stderr
    assert "* marks a difference from the configuration to beat" in stderr
    first, edited, third = events(workspace, "trial.proposed")
    assert first["data"]["source"] == "default"  # the first trial is the config itself: no longer approved one by one
    assert edited["data"]["source"] == "human"
    assert edited["data"]["params"]["model.d_model"] == 8
    assert third["data"]["source"] == "lhs"
    (refused,) = events(workspace, "proposal.refused")
    assert refused["data"]["params"] not in [event["data"]["params"] for event in (edited, third)]


def test_a_mistyped_name_is_told(approved: Approved) -> None:
    done = approved("e\nmodle.d_model=8\ny\ny\n")
    assert done.code == 0, done.err
    assert "Cannot try this: modle.d_model is not in the space" in done.err


def test_the_end_of_the_input_leaves_a_run_that_can_go_on(approved: Approved, workspace: Path) -> None:
    stopped = approved("y\n")
    assert stopped.code == 130
    assert "agentlab runs resume mine --approve" in stopped.err
    assert len(events(workspace, "trial.proposed")) == 2
    done = approved("y\n", "runs", "resume", "mine", "--approve")
    assert done.code == 0, done.err
    assert "Train it?" in done.err
    assert len(events(workspace, "decision.made")) == 3
    extended = approved("", "nas", "--resume", "mine", "--approve", "--max-iterations", "4")
    assert extended.code == 130
    assert "Train it?" in extended.err


def test_a_run_that_goes_on_without_it_asks_nobody_and_says_so(approved: Approved) -> None:
    assert approved("").code == 130
    assert "agentlab runs resume mine --approve" in approved("", "runs", "show", "mine").err
    done = approved("", "runs", "resume", "mine")
    assert done.code == 0, done.err
    assert "no longer approved one by one" in done.err
    assert "Train it?" not in done.err
    assert "--approve" not in approved("", "runs", "show", "mine").err


def test_a_run_without_trials_cannot_be_approved(agentlab: Callable[..., Answer], workspace: Path) -> None:
    OpenRun.create(workspace / "runs", RunSpec("pipeline", "", "", "h", 0, name="chain"), RunEnvironment()).close()
    refused = agentlab("runs", "resume", "chain", "--approve")
    assert refused.code == 2
    assert "pipeline has no trials to approve" in refused.err


def test_an_edit_names_keys_by_their_last_part_and_values_as_yaml() -> None:
    changed, wrong = edit(PARAMS, ["lr=0.01", "model.d_model=32"])
    assert changed == {**PARAMS, "training.optimizer_params.lr": 0.01, "model.d_model": 32}
    assert not wrong


def test_a_key_that_an_edit_makes_active_is_told_by_its_whole_name() -> None:
    changed, wrong = edit(PARAMS, ["training.optimizer_params.momentum=0.9"])
    assert changed == {**PARAMS, "training.optimizer_params.momentum": 0.9}
    assert not wrong


@pytest.mark.parametrize("words", [[], ["momentum=0.9"], ["lr"], ["lr="], ["width=3"], ["lr=[1,"]])
def test_an_edit_that_cannot_be_read_says_why(words: list[str]) -> None:
    changed, wrong = edit(PARAMS, words)
    assert wrong
    assert changed == PARAMS


@given(st.lists(st.text(max_size=30), max_size=5))
def test_whatever_is_typed_changes_only_keys_that_were_named(words: list[str]) -> None:
    changed, _ = edit(PARAMS, words)
    assert set(changed) >= set(PARAMS)
    assert set(changed) - set(PARAMS) <= {name for word in words if "." in (name := word.partition("=")[0])}
