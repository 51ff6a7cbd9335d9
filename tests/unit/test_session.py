"""The life of a run without a screen: what may start it, how it may end, and what is left of it."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentlab.commands import COMMANDS
from agentlab.config.load import load
from agentlab.config.overrides import Override
from agentlab.errors import AgentlabError, ConfigError, Interrupted, RunMismatchError, StorageError, UsageError
from agentlab.nas.config import NasConfig
from agentlab.nas.study import narrate
from agentlab.runs.atomic import storage_errors
from agentlab.runs.context import Context
from agentlab.runs.events import Event
from agentlab.runs.manifest import Metric
from agentlab.runs.redact import Redactor
from agentlab.runs.run import OpenRun, RunEnvironment, RunOutcome, RunSpec
from agentlab.runs.store import find
from agentlab.runs.views import PathLine
from agentlab.session import FinishedRun, Lines, Session, Watch, begin, go_on, surroundings

NAS = COMMANDS["nas"]
TINY = {
    "max_iterations": 1,
    "data.input_length": 24,
    "model.d_model": 8,
    "model.n_heads": 1,
    "model.e_layers": 1,
    "training.epochs": 1,
    "data.split": {"train": 1200, "val": 200, "test": 200},
    "training.train_fraction": 0.1,
    "evaluator.repeats": 0,
    "finals.count": 0,
    "llm": "none",
}


def overrides(**changes: object) -> list[Override]:
    return [Override(key, value, "overrides") for key, value in {**TINY, **changes}.items()]


@pytest.fixture
def context(workspace: Path) -> Context:
    return surroundings({"AGENTLAB_HOME": str(workspace)}, workspace)


class Experiment:
    """Does what it is told."""

    def __init__(self, work: Callable[[OpenRun], None]) -> None:
        self._work = work

    def plan(self) -> PathLine:
        return PathLine(path="nowhere")

    def run(self, run: OpenRun) -> tuple[PathLine, RunOutcome]:
        self._work(run)
        return PathLine(path="found"), RunOutcome(metrics={"val_mse": Metric(value=0.5, unit="", direction="lower")})


def session(context: Context, work: Callable[[OpenRun], None]) -> Session:
    spec = RunSpec("nas", "seed: 0\n", "{}\n", "hash", 0, name="mine")
    runs = context.workspace.runs
    return Session(NAS, Experiment(work), context, lambda edge: OpenRun.create(runs, spec, edge), Redactor())


def raising(error: BaseException) -> Callable[[OpenRun], None]:
    def work(run: OpenRun) -> None:
        raise error

    return work


# -- how it ends ----------------------------------------------------------------------------------------------------


def test_a_run_that_ends_well_leaves_its_result(context: Context) -> None:
    seen: list[str] = []
    done = session(context, lambda run: None).carry_out(Watch(line=seen.append))
    assert (done.id, done.result, seen) == ("mine", PathLine(path="found"), ["run mine"])
    record = find(context.workspace.runs, "mine")
    assert (record.status, record.manifest.metrics["val_mse"].value) == ("completed", 0.5)
    assert json.loads((done.path / "result.json").read_text()) == {"path": "found"}


def not_ours() -> StorageError:
    """As the writing of a file tells it."""
    try:
        with storage_errors(Path("x")):
            raise PermissionError(errno.EACCES, "Permission denied")
    except StorageError as error:
        return error


@pytest.mark.parametrize(
    ("error", "status", "hint"),
    [
        (Interrupted("Stopped."), "interrupted", "agentlab runs resume mine"),
        (AgentlabError("No luck.", hint="Try again."), "failed", "Try again."),
        (StorageError("Disk full."), "failed", "Free some space, then: agentlab runs resume mine"),
        (not_ours(), "failed", "Fix that, then: agentlab runs resume mine"),
    ],
)
def test_an_error_is_recorded_and_names_its_run(context: Context, error: AgentlabError, status: str, hint: str) -> None:
    with pytest.raises(type(error)) as caught:
        session(context, raising(error)).carry_out(Watch())
    path = context.workspace.runs / "mine"
    assert (caught.value.hint, caught.value.run) == (hint, {"id": "mine", "path": str(path), "status": status})
    assert json.loads((path / "manifest.json").read_text())["status"] == status


def test_a_bug_leaves_its_traceback_in_the_log_and_says_which_run_it_ended(context: Context) -> None:
    crashed: list[Any] = []
    with pytest.raises(ZeroDivisionError):
        session(context, lambda run: print(1 / 0)).carry_out(Watch(crashed=crashed.append))
    record = find(context.workspace.runs, "mine")
    assert crashed == [{"id": "mine", "path": str(record.path), "status": "failed"}]
    assert "ZeroDivisionError: division by zero" in record.text("log.txt")
    assert record.manifest.error is not None
    assert record.manifest.error.kind == "ZeroDivisionError"


def test_ctrl_c_between_two_writes_leaves_a_run_to_go_on_with(context: Context) -> None:
    """The event is in the file, but the program was stopped before it could take note of that."""

    def work(run: OpenRun) -> None:
        event = Event(seq=len(run.events), t=0.0, type="trial.proposed", id="run_0000")
        with (run.path / "events.jsonl").open("a") as file:
            file.write(event.to_json() + "\n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        session(context, work).carry_out(Watch())
    record = find(context.workspace.runs, "mine")
    assert [event.type for event in record.events()] == ["run.started", "trial.proposed", "run.interrupted"]
    assert (record.manifest.status, record.active) == ("interrupted", False)
    assert caught.value.__notes__ == ["To continue: agentlab runs resume mine"]


# -- how it starts --------------------------------------------------------------------------------------------------


def config_of(session: Session) -> str:
    with session.open_run(RunEnvironment()) as run:
        text = (run.path / "config.yaml").read_text()
    shutil.rmtree(run.path)
    return text


def test_preset_path_mapping_and_checked_config_mean_the_same(context: Context, workspace: Path) -> None:
    (workspace / "mine.yaml").write_text("extends: demo\n")
    checked = load(NasConfig, "nas", "demo", (), workspace=context.workspace, env=context.env, cwd=workspace).config
    for_all = {"context": context, "runs_dir": workspace / "runs"}
    texts = [
        config_of(begin("nas", config_source, overrides(seed=3), **for_all))
        for config_source in ("demo", "mine.yaml", Path("mine.yaml"), {"extends": "demo"}, checked)
    ]
    assert len(set(texts)) == 1
    assert "seed: 3\n" in texts[0]


def test_a_path_in_an_override_starts_at_the_current_folder_whatever_the_config_is(
    context: Context, workspace: Path
) -> None:
    (workspace / "models.yaml").write_text("{}\n")
    changes = [*overrides(), Override("llm", "./models.yaml")]
    begin("nas", {"extends": "demo"}, changes, context=context, runs_dir=workspace / "runs")


def test_a_mapping_is_checked_like_a_file(context: Context) -> None:
    for config_source, message in (
        ({"extends": "demo", "model": {"d_modle": 8}}, "config.yaml:3:3: model.d_modle: unknown key"),
        ({"extends": "demo", "data": {"path": object()}}, "not plain data"),
    ):
        with pytest.raises(ConfigError, match=message):
            begin("nas", config_source, [], context=context, runs_dir=context.workspace.runs)


def test_a_checked_experiment_has_written_nothing(context: Context, workspace: Path) -> None:
    begin("nas", "demo", overrides(), context=context, runs_dir=workspace / "runs")
    assert list(workspace.iterdir()) == []


def test_a_run_goes_on_only_with_more_budget(context: Context) -> None:
    runs = context.workspace.runs
    first = begin("nas", "demo", overrides(), context=context, runs_dir=runs).carry_out(Watch())
    same = go_on(NAS, find(runs, first.id), [Override("max_iterations", 1)], context=context)
    assert isinstance(same, FinishedRun)
    assert same.result == first.result
    with pytest.raises(RunMismatchError, match=r"model\.d_model: 8 -> 16"):
        go_on(NAS, find(runs, first.id), [Override("model.d_model", 16)], context=context)
    longer_session = go_on(NAS, find(runs, first.id), [Override("max_iterations", 2)], context=context)
    assert isinstance(longer_session, Session)
    seen: list[str] = []
    done = longer_session.carry_out(Watch(sinks=[Lines(narrate, seen.append)]))
    assert (done.path, len(done.result.trials)) == (first.path, 2)
    assert [line for line in seen if "run_0001" in line]
    assert not [line for line in seen if "run_0000 " in line and "winner" not in line]


def test_where_a_run_works_may_change_when_it_goes_on(context: Context) -> None:
    """How many work at a time belongs to the machine; a complete run needs no more for it."""
    runs = context.workspace.runs
    first = begin("nas", "demo", overrides(), context=context, runs_dir=runs).carry_out(Watch())
    same = go_on(NAS, find(runs, first.id), [Override("workers", 2)], context=context)
    assert isinstance(same, FinishedRun)
    longer_session = go_on(
        NAS, find(runs, first.id), [Override("workers", 2), Override("max_iterations", 2)], context=context
    )
    assert isinstance(longer_session, Session)
    assert {difference.key for difference in longer_session.changed or ()} == {"workers", "max_iterations"}


def test_a_run_of_another_command_is_refused_with_the_command_that_goes_on_with_it(context: Context) -> None:
    spec = RunSpec("debate", "seed: 0\n", "{}\n", "hash", 0, name="other")
    with OpenRun.create(context.workspace.runs, spec, RunEnvironment()):
        pass
    with pytest.raises(UsageError, match="belongs to `debate`") as caught:
        go_on(NAS, find(context.workspace.runs, "other"), [], context=context)
    assert caught.value.hint == "agentlab runs resume other"
