"""A branch of a run looks like a run from inside and like a part of one from outside."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentlab.errors import UsageError
from agentlab.runs.branch import RunBranch
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec


@pytest.fixture
def run(tmp_path: Path) -> Iterator[OpenRun]:
    with OpenRun.create(tmp_path, RunSpec("nas", "", "", "h", 0), RunEnvironment()) as run:
        yield run


def test_what_is_said_in_a_branch_bears_its_name_outside_only(run: OpenRun) -> None:
    branch = RunBranch(run, "agent-1")
    event = branch.emit("trial.finished", "run_0003", value=0.5)
    assert event.id == "agent-1/run_0003"
    assert [(e.type, e.id, e.data) for e in run.events] == [("trial.finished", "agent-1/run_0003", {"value": 0.5})]
    assert [(e.type, e.id, e.data) for e in branch.events] == [("trial.finished", "run_0003", {"value": 0.5})]


def test_branches_and_their_run_do_not_hear_each_other(run: OpenRun) -> None:
    first, longer = RunBranch(run, "agent-1"), RunBranch(run, "agent-10")
    run.emit("a.b", "run_0000")
    first.emit("a.b", "run_0001")
    longer.emit("a.b", "run_0002")
    run.emit("a.b", "agent-1")  # an id of the run that is only the name
    assert [event.id for event in first.events] == ["run_0001"]
    assert [event.id for event in longer.events] == ["run_0002"]


def test_the_order_and_number_of_events_are_those_of_the_run(run: OpenRun) -> None:
    branch = RunBranch(run, "x")
    for number in range(3):
        branch.emit("a.b", str(number))
        run.emit("a.b", str(number))
    assert [event.seq for event in branch.events] == [0, 2, 4]
    assert [event.id for event in branch.events] == ["0", "1", "2"]


def test_an_event_about_nothing_in_particular_belongs_to_the_branch_too(run: OpenRun) -> None:
    branch = RunBranch(run, "x")
    branch.emit("search.exhausted", reason="empty")
    assert [(event.type, event.id) for event in branch.events] == [("search.exhausted", "")]


def test_a_branch_is_found_again_after_a_resume(run: OpenRun) -> None:
    RunBranch(run, "x").emit("a.b", "run_0000")
    run.close()
    with OpenRun.resume(run.path, RunEnvironment()) as resumed:
        assert [event.id for event in RunBranch(resumed, "x").events] == ["run_0000"]


def test_its_files_lie_below_studies(run: OpenRun) -> None:
    branch = RunBranch(run, "control-2")
    assert branch.name == "control-2"
    assert branch.path == run.path / "studies" / "control-2"
    assert branch.folder.path == branch.path
    stored = branch.write_json("agent_state.json", {"x": 1})
    assert stored == branch.path / "agent_state.json"
    assert json.loads(stored.read_text()) == {"x": 1}


@pytest.mark.parametrize("name", ["../x", "a/../../../x", "..", "a\\b"])
def test_neither_its_name_nor_a_file_of_it_leads_out(run: OpenRun, name: str) -> None:
    with pytest.raises(UsageError):
        RunBranch(run, name)
    with pytest.raises(UsageError):
        RunBranch(run, "x").write_json(name, {})
    assert not (run.path.parent / "x").exists()
