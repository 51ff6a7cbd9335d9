"""Runs and their trials in MLflow: log a run, query trials, find the best.

The run folder stays the truth. An experiment of MLflow is a command, a run of it is a run of ours, and its nested runs
are the trials. Needs the extra `mlflow`. MLflow reports home unless it is told not to; here it is told.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from agentlab.errors import MissingExtraError, MissingFileError, RemoteError, StorageError, UsageError
from agentlab.files import written_path
from agentlab.integrations.tracking import LoggedRun, Tracked, TrackedTrials, TrackerEntry, best_of, entries, having
from agentlab.runs.atomic import make_folder
from agentlab.runs.store import RunRecord

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # else a server that is gone is tried for minutes
try:
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
except ImportError as error:
    raise MissingExtraError(
        f"MLflow cannot be loaded: {str(error)[:200]}.", hint="Install the extra: pip install -e '.[mlflow]'"
    ) from error

_OURS = "agentlab."  # before our tags
_WHOLE = f"{_OURS}whole"  # set last: how much of the run the copy holds
_STATUS = {"finished": "FINISHED", "stopped early": "KILLED", "failed": "FAILED"}
_AT_ONCE = 100  # parameters that MLflow takes
_PAGE = 1000


def log_run(record: RunRecord, store: str) -> LoggedRun:
    """Log a run and its trials. One that is there as it is now stays; one that has grown is replaced.

    Args:
        record: of any command; trials are those of nas, evolve and compress.
        store: an SQLite file, made if there is none, or a tracking URI.

    Raises:
        ConfigError, RunUnreadableError: the run is damaged.
        UsageError, StorageError, RemoteError: the store cannot be used.
    """
    run, *trials = entries(record)
    name, mark = record.manifest.command, f"{run.tags['events']} {run.status}"
    with _open_client(store, new=True) as client:
        experiment = client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
        old = [old_run for old_run in _runs(client, [experiment_id]) if old_run.data.tags[f"{_OURS}run"] == record.id]
        complete_ids = [old_run.info.run_id for old_run in old if old_run.data.tags.get(_WHOLE) == mark]
        if complete_ids:
            return LoggedRun(experiment=name, tracked=complete_ids[0], trials=len(trials))
        tags = {f"{_OURS}run": record.id, f"{_OURS}command": name}
        parent = _write(client, experiment_id, run, tags)
        for trial in trials:
            _write(client, experiment_id, trial, {**tags, "mlflow.parentRunId": parent})
        client.set_tag(parent, _WHOLE, mark)
        for old_run in old:
            client.delete_run(old_run.info.run_id)
    return LoggedRun(experiment=name, tracked=parent, trials=len(trials))


def query(store: str, command: str | None, settings: Mapping[str, str]) -> TrackedTrials:
    """The logged trials of a command, or of all, with these parameters.

    Raises:
        MissingFileError: nothing has been logged there.
        UsageError, StorageError, RemoteError: the store cannot be used.
    """
    with _open_client(store, new=False) as client:
        experiments = client.search_experiments()
        experiment_ids = [entry.experiment_id for entry in experiments if command in (None, entry.name)]
        runs = _runs(client, experiment_ids)
    complete_ids = {run.info.run_id for run in runs if _WHOLE in run.data.tags}  # no copy that a kill left half-written
    trials = [_tracked_run(run) for run in runs if run.data.tags.get("mlflow.parentRunId") in complete_ids]
    return TrackedTrials(trials=having(trials, settings))


def best(
    store: str, command: str | None, metric: str, direction: Literal["lower", "higher"], settings: Mapping[str, str]
) -> TrackedTrials:
    """Of these trials the best that finished, for each thing that was measured on.

    Raises:
        UnknownNameError: none of them has the metric.
        MissingFileError, UsageError, StorageError, RemoteError: see `query`.
    """
    return TrackedTrials(trials=best_of(query(store, command, settings).trials, metric, direction), metric=metric)


@contextlib.contextmanager
def _open_client(store: str, *, new: bool) -> Iterator[Any]:
    """A client of the store; what goes wrong there, in our words."""
    parts, file = urlsplit(store), None
    if parts.scheme.startswith("http") and parts.password:
        raise UsageError(
            "The address contains a password.", hint="Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
    if "://" not in store or store.startswith("sqlite:///"):
        file = Path.cwd() / written_path(store.removeprefix("sqlite:///"))
        _check(file, new=new)
    try:
        yield MlflowClient(tracking_uri=store if file is None else f"sqlite:///{file}")
    except MlflowException as error:
        message = f"MLflow cannot use {file or parts.hostname}: {' '.join(str(error).split())[:300]}"
        raise (StorageError if file else RemoteError)(message) from error


def _check(file: Path, *, new: bool) -> None:
    """See that MLflow can open a file: it would try what cannot succeed for minutes."""
    if not new and not file.is_file():
        raise MissingFileError(f"Nothing has been logged to {file}.", hint="agentlab runs mlflow log last")
    make_folder(file.parent)
    try:
        with contextlib.closing(sqlite3.connect(file)) as db:
            db.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        raise StorageError(f"{file} cannot be used: {error}.", hint="Choose another --store.") from error


def _runs(client: Any, experiment_ids: list[str]) -> list[Any]:
    """All runs that are ours, oldest first."""
    ours, order = f"tags.`{_OURS}run` != ''", ["attributes.start_time", f"tags.`{_OURS}trial`"]
    runs, token = list[Any](), None
    while experiment_ids:
        page = client.search_runs(experiment_ids, ours, max_results=_PAGE, order_by=order, page_token=token)
        runs, token = [*runs, *page], page.token
        if not token:
            break
    return runs


def _write(client: Any, experiment_id: str, entry: TrackerEntry, tags: Mapping[str, str]) -> str:
    start_ms, end_ms = (int(1000 * moment) for moment in (entry.began, entry.ended))
    own_tags = {f"{_OURS}{name}": value for name, value in entry.tags.items()}
    run: str = client.create_run(experiment_id, start_ms, {**own_tags, **tags}, entry.name).info.run_id
    params = [Param(name, value) for name, value in entry.params.items()]
    metrics = [Metric(name, value, end_ms, 0) for name, value in entry.metrics.items()]
    for start in range(0, max(len(params), len(metrics)), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        client.log_batch(run, metrics[some], params[some])
    if entry.status in _STATUS:
        client.set_terminated(run, _STATUS[entry.status], end_ms)
    return run


def _tracked_run(run: Any) -> Tracked:
    tags = {name.removeprefix(_OURS): text for name, text in run.data.tags.items()}
    named = {name: tags.get(name, "") for name in ("run", "command", "trial", "status", "basis", "source")}
    return Tracked(**named, params=run.data.params, metrics=run.data.metrics, tracked=run.info.run_id)
