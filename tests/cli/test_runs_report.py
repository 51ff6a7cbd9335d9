"""`runs report` says where a report is, opens it, and makes an index of all."""

import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentlab.runs.run import OpenRun, RunEnvironment, RunOutcome, RunSpec

Call = Callable[..., Any]


@pytest.fixture
def runs(workspace: Path) -> Path:
    for name in ("done", "stopped"):
        spec = RunSpec("nas", "seed: 0\n", "", "h", 0, name=name)
        with OpenRun.create(workspace / "runs", spec, RunEnvironment()) as run:
            run.start({})
            if name == "done":
                run.complete(RunOutcome())
            else:
                run.interrupt()
    return workspace / "runs"


def test_the_path_of_a_report_is_printed_and_opened_on_demand(
    runs: Path, agentlab: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(opened.append(url)))
    answer = agentlab("runs", "report", "done", "--json")
    assert answer.json["result"] == {"path": str(runs / "done" / "report.html")}
    assert opened == []
    answer = agentlab("runs", "report", "done", "--open")
    assert opened == [(runs / "done" / "report.html").as_uri()]
    assert "could not start a browser" in answer.err


def test_a_run_that_has_not_ended_has_none_and_says_how_to_go_on(runs: Path, agentlab: Call) -> None:
    answer = agentlab("runs", "report", "stopped", "--json")
    assert answer.code == 2
    assert "has no report" in answer.json["error"]["message"]
    assert answer.json["error"]["hint"] == "agentlab runs resume stopped"


def test_one_page_leads_to_all(runs: Path, agentlab: Call) -> None:
    answer = agentlab("runs", "report", "--all", "--json")
    page = runs / "index.html"
    assert answer.json["result"] == {"path": str(page)}
    assert '<a href="done/report.html">' in page.read_text()
    assert "stopped" in page.read_text()
