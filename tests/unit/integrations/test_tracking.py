"""What a run and its trials are to a tracker of experiments: one entry for the run, one for each trial."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentlab.errors import RunUnreadableError, UnknownNameError
from agentlab.integrations.tracking import Tracked, TrackerEntry, best_of, entries, having, plain
from agentlab.runs.manifest import Metric
from agentlab.runs.run import OpenRun, RunEnvironment, RunOutcome, RunSpec
from agentlab.runs.store import find
from agentlab.search.types import Params, TrialResult
from agentlab.study.events import Decision, Proposed, ResultBatch, emit

NAS = "data: {path: null, horizon: 24}\nspace: {data.horizon: {choices: [1, 2]}}\nmodel: {layers: [1, 2], name: half}\n"


def trial(run: Any, number: int, params: Params, result: TrialResult | None, accepted: bool = True) -> None:
    """A trial of a study, from its proposal to its decision."""
    name = f"run_{number:04d}"
    emit(run, "trial.proposed", name, Proposed(number, params, "llm", "a\nguess", "agent", 0.5))
    if result is not None:
        emit(run, f"trial.{result.status}", name, result)
        emit(run, "decision.made", name, Decision(accepted, "lower"))


def logged(folder: Path, run: OpenRun) -> list[TrackerEntry]:
    run.close()
    return list(entries(find(folder, run.path.name)))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[OpenRun]:
    ticks = iter(range(1_000_000, 2_000_000))
    with OpenRun.create(
        tmp_path, RunSpec("nas", NAS, "", "h", 7, name="one"), RunEnvironment(clock=lambda: next(ticks))
    ) as run:
        yield run


def test_a_run_is_its_config_its_figures_and_its_trials(tmp_path: Path, run: OpenRun) -> None:
    run.start({})
    metrics = {"val_mae": 0.2, "sets": {"easy": 1, "best": True}, "answers": [1, 2], "file": None}
    trial(run, 0, {"model.dropout": 0.1, "model.mix": True}, TrialResult("finished", 0.5, metrics))
    trial(run, 1, {"model.dropout": 0.2}, TrialResult("failed", error="it diverged"), accepted=False)
    trial(run, 2, {"model.dropout": 0.3}, None)
    run.complete(RunOutcome({"test_mse": Metric(value=0.4, direction="lower")}))
    parent, first, second, third = logged(tmp_path, run)
    assert (parent.name, parent.status, parent.metrics) == ("one", "finished", {"test_mse": 0.4})
    assert parent.params == {
        "data.path": "None",
        "data.horizon": "24",
        "space.data.horizon.choices": "[1, 2]",
        "model.layers": "[1, 2]",
        "model.name": "half",
    }
    assert parent.tags["seed"] == "7"
    assert (first.name, first.status) == ("run_0000", "finished")
    assert first.params == {"model.dropout": "0.1", "model.mix": "True"}
    assert first.metrics == {"val_mae": 0.2, "sets.easy": 1.0, "sets.best": 1.0, "value": 0.5, "measurements": 1.0}
    tags = {key: first.tags[key] for key in ("source", "arm", "accepted", "note", "reason")}
    assert tags == {"source": "llm", "arm": "agent", "accepted": "True", "note": "a\nguess", "reason": "lower"}
    assert (second.status, second.tags["error"], second.metrics) == ("failed", "it diverged", {"measurements": 0.0})
    assert (third.status, third.metrics) == ("running", {"measurements": 0.0})
    assert parent.began < first.began < first.ended < second.began <= third.began <= parent.ended


def test_a_run_without_trials_is_logged_alone(tmp_path: Path, run: OpenRun) -> None:
    (entry,) = logged(tmp_path, run)
    assert (entry.name, entry.status, entry.began) == ("one", "stopped early", entry.ended)


def test_the_studies_beside_the_main_one_are_told_apart(tmp_path: Path, run: OpenRun) -> None:
    for name in ("", "control-0/"):
        emit(run, "trial.proposed", f"{name}run_0000", Proposed(0, {"a": 1}, "gp", "", "control", 0.0))
        emit(run, "batch.finished", f"{name}run_0000", ResultBatch({"run_0000": TrialResult("finished", len(name))}))
    _, main, control = logged(tmp_path, run)
    assert (main.name, main.metrics["value"]) == ("run_0000", 0)
    assert (control.name, control.metrics["value"]) == ("control-0/run_0000", 10)
    assert main.tags["basis"] == control.tags["basis"]


def test_several_bases_are_several_things_to_measure(tmp_path: Path) -> None:
    config = "base: null\nmodels: [a, b]\n"
    with OpenRun.create(tmp_path, RunSpec("compress", config, "", "h", 0, name="two"), RunEnvironment()) as run:
        for name in ("a", "b", "b/portfolio"):
            if "/" not in name:
                run.emit("texts.cut", name, sha256="aa")
            emit(run, "trial.proposed", f"{name}/run_0000", Proposed(0, {}, "random", "", "shared", 0.0))
        _, one, two, portfolio = logged(tmp_path, run)
    assert one.tags["basis"] != two.tags["basis"] == portfolio.tags["basis"]


def test_a_trial_that_was_asked_fewer_items_was_stopped_early(tmp_path: Path, run: OpenRun) -> None:
    trial(run, 0, {}, TrialResult("finished", 0.5, items=(0.5, 0.5)))
    trial(run, 1, {}, TrialResult("finished", 0.0, items=(0.0,)))
    assert [tracked_run.status for tracked_run in logged(tmp_path, run)[1:]] == ["finished", "stopped early"]


def test_names_and_texts_are_what_trackers_take(tmp_path: Path, run: OpenRun) -> None:
    odd = {"a/b": "x" * 7000, "a:b": "half", "../c": 1, "": 2, 'space."data.x".low': 3, "d" * 300: 4}
    trial(run, 0, odd, None)
    params = logged(tmp_path, run)[1].params
    collided = next(name for name in params if name.startswith("a_b_"))
    assert list(params) == ["a_b", collided, "_c", "_", "space.data.x.low", "d" * 240]
    assert len(params["a_b"]) < 6000
    assert params[collided] == "half"


def test_a_damaged_event_is_no_trial(tmp_path: Path, run: OpenRun) -> None:
    run.emit("trial.proposed", "run_0000", number=0)
    with pytest.raises(RunUnreadableError, match="damaged"):
        logged(tmp_path, run)


def tracked(trial: str, status: str = "finished", basis: str = "x", **fields: Any) -> Tracked:
    names = {"run": "r", "command": "nas", "source": "gp", "tracked": "t"}
    return Tracked(trial=trial, status=status, basis=basis, **names, **{"params": {}, "metrics": {}, **fields})


def test_a_setting_is_compared_as_a_number_where_it_is_one() -> None:
    trials = [tracked("a", params={"lr": "0.1", "mix": "True"}), tracked("b", params={"lr": "0.2"})]
    assert [trial.trial for trial in having(trials, {"lr": "1e-1"})] == ["a"]
    assert [trial.trial for trial in having(trials, {"mix": "true"})] == ["a"]
    assert having(trials, {"lr": "0.1", "mix": "false"}) == []
    assert having(trials, {}) == trials


def test_the_best_is_told_for_each_thing_that_was_measured_on() -> None:
    trials = [
        tracked("a", metrics={"mse": 2.0}),
        tracked("b", metrics={"mse": 1.0}),
        tracked("c", "stopped early", metrics={"mse": 0.0}),
        tracked("d", metrics={"mae": 0.0}),
        tracked("e", basis="y", metrics={"mse": 9.0}),
    ]
    assert [trial.trial for trial in best_of(trials, "mse", "lower")] == ["b", "e"]
    assert [trial.trial for trial in best_of(trials, "mse", "higher")] == ["a", "e"]
    with pytest.raises(UnknownNameError, match="kl") as caught:
        best_of(trials, "kl", "lower")
    assert "mae, mse" in str(caught.value.hint)


def test_a_plain_name_stays() -> None:
    assert plain("training.optimizer_params.lr") == "training.optimizer_params.lr"
