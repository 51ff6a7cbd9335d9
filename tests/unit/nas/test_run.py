"""A study picks up what a kill has left half done, and refuses another series."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import ConfigError, DataError, RunUnreadableError
from agentlab.nas.config import NasConfig
from agentlab.nas.run import NasExperiment
from agentlab.runs.context import Context
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec

pytestmark = pytest.mark.usefixtures("undrawn")


def make(tmp_path: Path, **changes: Any) -> NasExperiment:
    """A study of a sine, checked."""
    hours = np.datetime64("2024-01-01T00:00") + np.arange(120) * np.timedelta64(1, "h")
    lines = [f"{hour},{np.sin(number / 4):.4f}" for number, hour in enumerate(hours)]
    (tmp_path / "s.csv").write_text("date,a\n" + "\n".join(lines) + "\n")
    config = NasConfig.model_validate(
        {
            "max_iterations": 1,
            "data": {"path": "s.csv", "input_length": 8, "horizon": 2},
            "model": {"d_model": 4, "n_heads": 1, "e_layers": 1},
            "training": {"epochs": 1},
            "evaluator": {"repeats": 0},
            "finals": {"count": 1, "seeds": 2},
            "space": {"data.input_length": {"type": "categorical", "choices": [8, 16, 256]}},
            **changes,
        }
    )
    return NasExperiment(config, Context(Workspace(root=tmp_path, cache=tmp_path), {}))


@pytest.fixture
def experiment(tmp_path: Path) -> NasExperiment:
    return make(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[OpenRun]:
    with OpenRun.create(tmp_path / "runs", RunSpec("nas", "", "", "h", 0), RunEnvironment()) as run:
        yield run


def test_reference_lines_that_a_kill_has_cut_off_are_measured_after_a_resume(
    experiment: NasExperiment, run: OpenRun
) -> None:
    full_run, _ = experiment.run(run)
    names = [line.name for line in full_run.references]
    events = [event for event in run.events if event.type == "reference.measured"]
    with OpenRun.create(run.path.parent, RunSpec("nas", "", "", "h", 0, name="cut"), RunEnvironment()) as cut:
        cut.emit("reference.measured", names[0], **events[0].data)
        resumed, _ = experiment.run(cut)
    assert [line.name for line in resumed.references] == names
    assert len(names) > 1


def test_the_snapshot_gets_the_test_score_although_a_kill_came_between(experiment: NasExperiment, run: OpenRun) -> None:
    experiment.run(run)
    finished = json.loads((run.path / "agent_state.json").read_text())
    run.write_json("agent_state.json", {})  # as it stood before the winner was scored
    experiment.run(run)
    assert json.loads((run.path / "agent_state.json").read_text()) == finished
    assert finished["runs"][0]["test_mse"] is not None
    assert sum(event.type == "winner.scored" for event in run.events) == 1


def test_a_resume_on_another_series_is_refused(experiment: NasExperiment, run: OpenRun) -> None:
    run.emit("study.opened", summary="", trials=1, done=0, data="0" * 64)
    with pytest.raises(DataError, match="has changed since the run started"):
        experiment.run(run)


def test_an_opening_that_lacks_its_series_is_told_as_damage(experiment: NasExperiment, run: OpenRun) -> None:
    fingerprint = experiment.series.fingerprint
    run.emit("study.opened", summary="", trials=1, done=0, data=fingerprint)
    run.emit("study.opened", summary="", trials=1, done=0)
    with pytest.raises(RunUnreadableError, match=r"Event \d+ \(study.opened\) is damaged"):
        experiment.run(run)


def test_a_later_part_on_another_series_is_refused_too(experiment: NasExperiment, run: OpenRun) -> None:
    for data in (experiment.series.fingerprint, "0" * 64):
        run.emit("study.opened", summary="", trials=1, done=0, data=data)
    with pytest.raises(DataError, match="has changed since the run started"):
        experiment.run(run)


def test_a_candidate_that_leaves_a_part_without_windows_costs_no_trial(experiment: NasExperiment) -> None:
    reasons = experiment.rules.against(())
    assert reasons({"data.input_length": 16}) == []
    assert "train split" in reasons({"data.input_length": 256})[0]


def test_an_empty_space_is_for_one_trial(tmp_path: Path) -> None:
    assert make(tmp_path, space={}).default == {}
    with pytest.raises(ConfigError, match="`space` is empty"):
        make(tmp_path, space={}, max_iterations=2)


def test_an_arm_that_cannot_search_the_space_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    space = {"model.dropout": {"type": "float", "low": 0.0, "high": 0.5}}
    make(tmp_path, space=space, search={"base": "cma-es"})
    choice = {"model.distil": {"type": "categorical", "choices": [True, False]}}
    with pytest.raises(ConfigError, match=r"the choices of model\.distil have no order"):
        make(tmp_path, space={**space, **choice}, search={"base": "cma-es"})


def test_paired_studies_of_one_trial_cannot_differ(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Paired studies need more than max_iterations=1"):
        make(tmp_path, control="full")
    assert make(tmp_path, control="full", max_iterations=2).config.control == "full"
    with pytest.raises(ConfigError, match="which both studies share, already takes 3 training runs"):
        make(tmp_path, control="full", max_iterations=3, evaluator={"repeats": 2})


def test_a_last_round_in_which_all_failed_leaves_the_winner_as_it_stands(tmp_path: Path, run: OpenRun) -> None:
    make(tmp_path, finals={"count": 0}).run(run)
    for seed in range(2):
        run.emit("trial.failed", f"run_0000-f{seed}", error="MemoryError: gone", metrics={})
    result, _ = make(tmp_path).run(run)
    assert (result.winner.run_id, result.winner.exported) == ("run_0000", "run_0000")
    assert result.winner.val_mse == result.trials[0].val_mse
    (row,) = result.finalists
    assert (row.val_mse, row.failed, row.mean) == ([], 2, None)
    run.write_report(run.manifest)
    report = (run.path / "report.md").read_text()
    assert "Every training run in the last round failed" in report
    assert "plots/finalists.svg" not in report


def test_without_a_last_round_the_report_has_none(tmp_path: Path, run: OpenRun) -> None:
    result, _ = make(tmp_path, finals={"count": 0}).run(run)
    assert result.finalists == []
    run.write_report(run.manifest)
    assert "The last round" not in (run.path / "report.md").read_text()


def test_a_curve_whose_folder_was_removed_is_left_out(tmp_path: Path, run: OpenRun) -> None:
    settings = {"max_iterations": 2, "finals": {"count": 1, "seeds": 1}}
    first, _ = make(tmp_path, **settings).run(run)
    loser = next(trial.run_id for trial in first.trials if trial.run_id != first.winner.run_id)
    shutil.rmtree(run.path / "trials" / loser)
    second, _ = make(tmp_path, **settings).run(run)
    assert second.winner == first.winner


def test_a_trial_0_outside_the_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"outside the search space: data\.input_length = 8 is invalid; expected one of"
    ):
        make(tmp_path, space={"data.input_length": {"type": "categorical", "choices": [16, 32]}})


def test_the_winner_folder_says_where_its_weights_come_from(experiment: NasExperiment, run: OpenRun) -> None:
    result, _ = experiment.run(run)
    card = json.loads((run.path / "winner" / "card.json").read_text())
    assert (card["run"], card["training"]) == (run.id, result.winner.exported)
    scored = next(event.data for event in run.events if event.type == "winner.scored")
    assert card["test_mse"] == scored["mse"][scored["names"].index(card["training"])]
    weights = (run.path / "winner" / "model.safetensors").read_bytes()
    assert weights[:8] != b""
    assert card["fingerprint"] == experiment.series.fingerprint


def test_a_longer_search_scores_the_test_part_again_only_for_another_winner(tmp_path: Path, run: OpenRun) -> None:
    make(tmp_path).run(run)
    longer, _ = make(tmp_path, max_iterations=2).run(run)
    scored = [event.id for event in run.events if event.type == "winner.scored"]
    assert scored[-1] == longer.winner.run_id
    assert len(scored) == len(set(scored))
    make(tmp_path, max_iterations=2).run(run)
    assert [event.id for event in run.events if event.type == "winner.scored"] == scored


def test_a_kill_in_the_last_round_costs_the_training_it_was_in(tmp_path: Path, run: OpenRun) -> None:
    finals = {"count": 1, "seeds": 3, "epochs": 2}
    full_run, _ = make(tmp_path, finals=finals).run(run)
    lines = (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)
    index = next(n for n, line in enumerate(lines) if b"trial.started" in line and b"-f1" in line)
    OpenRun.create(run.path.parent, RunSpec("nas", "", "", "h", 0, name="cut"), RunEnvironment()).close()
    cut_path = run.path.parent / "cut"
    (cut_path / "events.jsonl").write_bytes(b"".join(lines[: index + 1]))
    for name in ("run_0000", "run_0000-f0"):
        shutil.copytree(run.path / "trials" / name, cut_path / "trials" / name)
    with OpenRun.resume(cut_path, RunEnvironment()) as cut:
        resumed, _ = make(tmp_path, finals=finals).run(cut)
        started = [event.id for event in cut.events if event.type == "trial.started"]
    assert resumed.winner == full_run.winner
    assert resumed.finalists == full_run.finalists
    assert started == ["run_0000", "run_0000-f0", "run_0000-f1", "run_0000-f1", "run_0000-f2"]


def asked(judge: str) -> dict[str, Any]:
    """A fake that proposes, and near ties shown to it, or to another one that rejects whatever it sees."""
    return {
        "providers": {
            "first": {"kind": "scripted", "mode": "first"},
            "last": {"kind": "scripted", "mode": "adversarial"},
        },
        "models": {
            "planner": {"provider": "first", "id": "planner", "tier": "pick"},
            "contrary": {"provider": "last", "id": "contrary", "tier": "edit"},
        },
        "roles": {"primary": ["planner"], "reserve": ["contrary"]},
        "tasks": {"nas.propose": {"roles": ["primary"]}, "nas.evaluate": {"roles": [judge]}},
    }


def test_a_model_that_rejects_everything_costs_no_gain(tmp_path: Path) -> None:
    """Same trials, same trainings, same winner, same test error; only the opinions are new, and are counted."""
    results = []
    for name, judge in (("alone", "primary"), ("judged", "reserve")):
        experiment = make(tmp_path, max_iterations=5, llm=asked(judge), evaluator={"noise": 0.5}, space=SPACE)
        with OpenRun.create(tmp_path / "runs", RunSpec("nas", "", "", "h", 0, name=name), RunEnvironment()) as run:
            results.append(experiment.run(run)[0])
    alone, judged = results
    assert judged.winner == alone.winner
    measured = [[(t.run_id, t.val_mse, t.trainings, t.accepted) for t in result.trials] for result in results]
    assert measured[0] == measured[1]
    assert not any(row.task == "nas.evaluate" for row in alone.models)
    (row,) = [row for row in judged.models if row.task == "nas.evaluate"]
    assert row.checked == row.usable > 0


SPACE = {
    "data.input_length": {"type": "categorical", "choices": [8, 16]},
    "training.optimizer_params.lr": {"type": "float", "low": 0.0001, "high": 0.02, "log": True},
}
