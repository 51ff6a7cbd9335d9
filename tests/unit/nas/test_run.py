"""A study picks up what a kill has left half done, and refuses another series."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import DataError
from agentlab.nas.config import NasConfig
from agentlab.nas.run import NasExperiment
from agentlab.runs.context import Context
from agentlab.runs.run import Edge, Run, RunSpec


@pytest.fixture
def experiment(tmp_path: Path) -> NasExperiment:
    hours = np.datetime64("2024-01-01T00:00") + np.arange(120) * np.timedelta64(1, "h")
    lines = [f"{hour},{np.sin(number / 4):.4f}" for number, hour in enumerate(hours)]
    (tmp_path / "s.csv").write_text("date,a\n" + "\n".join(lines) + "\n")
    config = NasConfig.model_validate(
        {
            "max_iterations": 1,
            "data": {"path": "s.csv", "input_length": 8, "horizon": 2},
            "model": {"d_model": 4, "n_heads": 1, "e_layers": 1},
            "training": {"epochs": 1},
            "space": {"data.input_length": {"type": "categorical", "choices": [8, 16, 256]}},
        }
    )
    return NasExperiment(config, Context(Workspace(root=tmp_path, cache=tmp_path), {}))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run.create(tmp_path / "runs", RunSpec("nas", "", "", "h", 0), Edge()) as run:
        yield run


def test_reference_lines_that_a_kill_has_cut_off_are_measured_after_a_resume(
    experiment: NasExperiment, run: Run
) -> None:
    whole, _ = experiment.run(run)
    names = [line.name for line in whole.references]
    events = [event for event in run.events if event.type == "reference.measured"]
    with Run.create(run.path.parent, RunSpec("nas", "", "", "h", 0, name="cut"), Edge()) as cut:
        cut.emit("reference.measured", names[0], **events[0].data)
        resumed, _ = experiment.run(cut)
    assert [line.name for line in resumed.references] == names
    assert len(names) > 1


def test_the_snapshot_gets_the_test_score_although_a_kill_came_between(experiment: NasExperiment, run: Run) -> None:
    experiment.run(run)
    finished = json.loads((run.path / "agent_state.json").read_text())
    run.write_json("agent_state.json", {})  # as it stood before the winner was scored
    experiment.run(run)
    assert json.loads((run.path / "agent_state.json").read_text()) == finished
    assert finished["runs"][0]["test_mse"] is not None
    assert sum(event.type == "winner.scored" for event in run.events) == 1


def test_a_resume_on_another_series_is_refused(experiment: NasExperiment, run: Run) -> None:
    run.emit("study.opened", summary="", trials=1, done=0, data="0" * 64)
    with pytest.raises(DataError, match="has changed since the run began"):
        experiment.run(run)


def test_a_candidate_that_leaves_a_part_without_windows_costs_no_trial(experiment: NasExperiment) -> None:
    reasons = experiment.rules.against(())
    assert reasons({"data.input_length": 16}) == []
    assert "train part" in reasons({"data.input_length": 256})[0]
