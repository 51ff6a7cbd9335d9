"""Runs in a store of MLflow, read back with its own client. `make test-mlflow` runs it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentlab.errors import MissingFileError, RemoteError, StorageError, UsageError
from agentlab.runs.run import OpenRun, RunEnvironment, RunOutcome, RunSpec
from agentlab.runs.store import RunRecord, find
from agentlab.search.types import TrialResult
from agentlab.study.events import Proposed, emit
from agentlab.study.state import rebuild
from cli.main import main
from tests.cli.conftest import TINY

pytest.importorskip("mlflow", reason="the extra mlflow is not installed; `make test-mlflow` has it")
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from agentlab.integrations import mlflow

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's way with SQLAlchemy


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One for all tests: its tables take seconds. Each test has a command, and so an experiment, of its own."""
    return str(tmp_path_factory.mktemp("mlflow") / "new" / "mlflow.db")


def children(store: str, logged: Any) -> list[Any]:
    """The nested runs of a logged run, as MLflow has them."""
    client = MlflowClient(tracking_uri=f"sqlite:///{store}")
    experiment_id = client.get_run(logged.tracked).info.experiment_id
    return list(client.search_runs([experiment_id], f"tags.`mlflow.parentRunId` = '{logged.tracked}'"))


def made(folder: Path, command: str, *params: dict[str, Any]) -> RunRecord:
    """A run with trials at these points."""
    with OpenRun.create(folder, RunSpec(command, "seed: 0\n", "", "h", 0, name="run"), RunEnvironment()) as run:
        add(run, *params)
    return find(folder, "run")


def add(run: OpenRun, *params: dict[str, Any]) -> None:
    for point in params:
        number = len(rebuild(run.events).trials)
        name = f"run_{number:04d}"
        emit(run, "trial.proposed", name, Proposed(number, point, "random", "", "shared", 0.0))
        emit(run, "trial.finished", name, TrialResult("finished", 1.0 / (1 + number), {"size": number}))


def test_a_search_is_read_back_with_the_same_parameters_and_figures(
    workspace: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["nas", "demo", *TINY, "--run-name", "real", "--max-iterations", "3", "-q"]) == 0
    record = find(workspace / "runs", "real")
    assert main(["runs", "mlflow", "log", "real", "--store", store]) == 0
    logged = mlflow.log_run(record, store)
    run = MlflowClient(tracking_uri=f"sqlite:///{store}").get_run(logged.tracked)
    assert run.data.metrics == pytest.approx({name: entry.value for name, entry in record.manifest.metrics.items()})
    assert (run.info.run_name, run.info.status, run.data.params["model.d_model"]) == ("real", "FINISHED", "8")
    trials = {trial.id: trial for trial in rebuild(record.events()).trials}
    children_by_name = {entry.info.run_name: entry for entry in children(store, logged)}
    assert children_by_name.keys() == trials.keys()
    for name, trial in trials.items():
        data = children_by_name[name].data
        assert data.params == {key: str(value) for key, value in trial.proposal.params.items()}
        assert trial.result is not None
        assert data.metrics == {**trial.result.metrics, "value": trial.value, "measurements": len(trial.values)}
        assert data.tags["agentlab.source"] == trial.proposal.source
    capsys.readouterr()
    assert main(["runs", "mlflow", "best", "--command", "nas", "--store", store]) == 0
    assert main(["runs", "mlflow", "query", "nonsense", "--store", store]) == 2
    assert main(["runs", "mlflow", "log", "nobody", "--store", store]) == 2
    best = min(trials.values(), key=lambda trial: trial.value or 0.0)
    assert best.id in capsys.readouterr().out
    assert not (workspace / "mlruns").exists()


def test_a_run_is_there_once_however_often_it_is_logged(tmp_path: Path, store: str) -> None:
    record = made(tmp_path, "evolve", {"a": 1})
    first = mlflow.log_run(record, store)
    assert mlflow.log_run(record, store) == first
    with OpenRun.resume(record.path, RunEnvironment()) as run:
        add(run, {"a": 2})
        run.complete(RunOutcome())
    grown = mlflow.log_run(find(tmp_path, "run"), store)
    assert grown.tracked != first.tracked
    assert [trial.params for trial in mlflow.query(store, "evolve", {}).trials] == [{"a": "1"}, {"a": "2"}]
    assert len(children(store, grown)) == 2


def test_a_copy_that_was_killed_half_way_is_not_seen_and_is_replaced(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = made(tmp_path, "compress", {"bits": 4}, {"bits": 8})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_tag", killed)
        with pytest.raises(KeyboardInterrupt):
            mlflow.log_run(record, store)
    assert mlflow.query(store, "compress", {}).trials == []
    mlflow.log_run(record, store)
    assert [trial.trial for trial in mlflow.query(store, "compress", {}).trials] == ["run_0000", "run_0001"]


def test_trials_are_queried_by_their_parameters_and_the_best_by_a_metric(tmp_path: Path, store: str) -> None:
    mlflow.log_run(made(tmp_path, "debate", {"lr": 0.1, "k": "a'b\"`"}, {"lr": 0.2, "k": "x"}), store)
    assert [trial.metrics["size"] for trial in mlflow.query(store, "debate", {"lr": "1e-1", "k": "a'b\"`"}).trials] == [
        0
    ]
    assert mlflow.best(store, "debate", "value", "lower", {}).trials[0].params["lr"] == "0.2"
    assert mlflow.best(store, "debate", "value", "lower", {"lr": "0.1"}).trials[0].metrics["value"] == 1.0
    assert mlflow.query(store, "nobody", {}).trials == []


def test_what_mlflow_refuses_is_logged_all_the_same(tmp_path: Path, store: str) -> None:
    odd = {
        "../../up": "x" * 7000,
        "a:b'\"`;--": 1,
        "": 2,
        "p" * 400: 3,
        "ä/日": "é\n",
        **{f"n{i}": i for i in range(150)},
    }
    logged = mlflow.log_run(made(tmp_path, "pipeline", odd), store)
    (child,) = children(store, logged)
    assert len(child.data.params) == len(odd)
    assert child.data.params["n149"] == "149"
    assert child.data.params["ä_日"] == "é\n"


def test_a_run_without_trials_is_a_run(tmp_path: Path, store: str) -> None:
    logged = mlflow.log_run(made(tmp_path, "llm-bench"), store)
    assert (logged.trials, children(store, logged)) == (0, [])


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda record, place: mlflow.query(str(place / "absent.db"), None, {}), MissingFileError),
        (lambda record, place: mlflow.log_run(record, str(place)), StorageError),
        (lambda record, place: mlflow.log_run(record, str(place / "broken.db")), StorageError),
        (lambda record, place: mlflow.log_run(record, "http://127.0.0.1:9"), RemoteError),
        (lambda record, place: mlflow.log_run(record, "http://me:secret@127.0.0.1:9"), UsageError),
    ],
    ids=["absent", "a folder", "no database", "no server", "a password"],
)
def test_a_store_that_cannot_be_used_is_told_soon(
    tmp_path: Path, ask: Callable[[RunRecord, Path], object], error: type[Exception]
) -> None:
    record, began = made(tmp_path, "nas"), time.monotonic()
    (tmp_path / "broken.db").write_text("no database at all, and long enough to be looked at as one: " * 9)
    with pytest.raises(error) as caught:
        ask(record, tmp_path)
    assert not isinstance(caught.value, MlflowException)
    assert "secret" not in str(caught.value)
    assert time.monotonic() - began < 60


def test_mlflow_does_not_report_home(tmp_path: Path, store: str) -> None:
    """Told by a process that is neither a test nor CI: there MLflow keeps quiet by itself."""
    made(tmp_path, "train-persona", {})
    code = (
        "import sys, agentlab.integrations.mlflow as ours\n"
        "from pathlib import Path\n"
        "from agentlab.runs.store import find\n"
        "sys.addaudithook(lambda name, args: name == 'socket.connect' and print('connects to', args))\n"
        "ours.log_run(find(Path(sys.argv[1]), 'run'), sys.argv[2])\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "print(get_telemetry_client())\n"
    )
    env = {name: text for name, text in os.environ.items() if not name.startswith(("PYTEST", "CI", "GITHUB", "MLFLOW"))}
    command = [sys.executable, "-c", code, str(tmp_path), store]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")
