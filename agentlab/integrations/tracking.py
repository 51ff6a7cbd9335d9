"""A run and its trials as trackers of experiments know them: runs with parameters, metrics and tags. Pure."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Any, Literal

from agentlab.commands import command
from agentlab.config.base import flatten
from agentlab.errors import UnknownNameError
from agentlab.runs.comparability import digest
from agentlab.runs.compare import read_measured_run
from agentlab.runs.document import AnswerDocument, Block, Plain, Text, table
from agentlab.runs.events import Event
from agentlab.runs.store import RunRecord
from agentlab.study.state import TrialState, rebuild

_LONGEST_NAME, _LONGEST_TEXT = 240, 5000  # MLflow takes 250, and 6000 in a parameter


@dataclass(frozen=True, slots=True)
class TrackerEntry:
    """What becomes one run of a tracker. `status` is finished, stopped early, failed or running; times in seconds."""

    name: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    began: float
    ended: float


def entries(record: RunRecord) -> Iterator[TrackerEntry]:
    """The run itself, then the trials of all its studies.

    Raises:
        ConfigError, RunUnreadableError: its config or its events are damaged.
    """
    manifest, events, measured_run = record.manifest, record.events(), read_measured_run(record)
    began = datetime.fromisoformat(manifest.created).timestamp()
    words = {"completed": "finished", "created": "running", "interrupted": "stopped early"}
    yield TrackerEntry(
        record.id,
        words.get(record.status, record.status),
        _texts(flatten(measured_run.config)),
        _numbers({name: metric.value for name, metric in manifest.metrics.items()}),
        _texts({"seed": manifest.seed, "version": manifest.versions.get("agentlab"), "events": len(events)}),
        began,
        max([began, *(event.t for event in events[-1:])]),
    )
    basis = command(manifest.command).basis()
    basis_digest, parts = digest(measured_run, basis), {event.id for event in events if event.type == basis.event[0]}
    studies = _studies(events)
    trials: list[tuple[str, TrialState]] = []
    for name, study_events in studies.items():
        trials += [(name, trial) for trial in rebuild(study_events).trials]
    most_items = max((len(trial.result.items) for _, trial in trials if trial.result), default=0)
    for name, trial in trials:
        part = name.partition("/")[0]  # of several bases each is another thing to measure
        where = f"{basis_digest}/{part}" if part and part in parts else basis_digest
        times = [event.t for event in studies[name] if event.id == trial.id]
        yield _entry(f"{name}/{trial.id}".lstrip("/"), trial, most_items, where, times)


def _studies(events: Sequence[Event]) -> dict[str, list[Event]]:
    """The events of each study by its name, which is empty for the main one."""
    proposals = (event for event in events if event.type == "trial.proposed")
    studies: dict[str, list[Event]] = {event.id.rpartition("/")[0]: [] for event in proposals}
    for event in events:
        name = event.id.rpartition("/")[0]
        if name in studies:
            studies[name].append(replace(event, id=event.id.removeprefix(f"{name}/")))
    return studies


def _entry(name: str, trial: TrialState, most_items: int, basis: str, times: Sequence[float]) -> TrackerEntry:
    result, proposal, decision = trial.result, trial.proposal, trial.decision
    status: str = result.status if result else "running"
    if result and status == "finished" and len(result.items) < most_items:
        status = "stopped early"  # what it scored is of fewer items
    fields = {
        "trial": name,
        "status": status,
        "basis": basis,
        "source": proposal.source,
        "arm": trial.arm,
        "note": proposal.note,
        "accepted": decision and decision.accepted,
        "reason": decision and decision.reason,
        "error": result and result.error,
    }
    metrics = {**(flatten(result.metrics) if result else {}), "value": trial.value, "measurements": len(trial.values)}
    tags = _texts({key: value for key, value in fields.items() if value not in (None, "")})
    return TrackerEntry(name, status, _texts(proposal.params), _numbers(metrics), tags, times[0], times[-1])


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    texts = {name: str(value) for name, value in _with_plain_names(values).items()}
    return {name: text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..." for name, text in texts.items()}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in _with_plain_names(numbers).items()}


def _with_plain_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """With names that trackers take; of two that would be one, the second says which it is."""
    renamed: dict[str, Any] = {}
    for key, value in values.items():
        name = plain(key)
        if name in renamed:
            name += f"_{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        renamed[name] = value
    return renamed


def plain(name: str) -> str:
    """A name without what trackers refuse: quotes, slashes, and whatever else is no part of a word."""
    return re.sub(r"[^\w. -]", "_", name.replace('"', "")).lstrip(".")[:_LONGEST_NAME] or "_"


class Tracked(Plain):
    """A trial as a tracker has it. `basis` names what it was measured on, `tracked` is the tracker's own name of it."""

    run: str
    command: str
    trial: str
    status: str
    basis: str
    source: str
    params: dict[str, str]
    metrics: dict[str, float]
    tracked: str


class TrackedTrials(AnswerDocument):
    """The answer of a question to a tracker; `metric` is what the trials were chosen by."""

    trials: list[Tracked]
    metric: str = "value"

    def blocks(self) -> list[Block]:
        if not self.trials:
            return [Text("No logged trial matches. See: agentlab runs mlflow log --help")]
        columns: dict[str, Callable[[Tracked], str | float | None]] = {
            "run": lambda trial: trial.run,
            "trial": lambda trial: trial.trial,
            "measured on": lambda trial: trial.basis,
            "source": lambda trial: trial.source,
            "status": lambda trial: trial.status,
            self.metric: lambda trial: trial.metrics.get(self.metric),
            "parameters": lambda trial: ", ".join(f"{name}={value}" for name, value in trial.params.items()),
        }
        return [table(self.trials, columns)]


class LoggedRun(AnswerDocument):
    """The answer of logging a run: where it lies, and how many trials it has."""

    experiment: str
    tracked: str
    trials: int

    def blocks(self) -> list[Block]:
        return [Text(f"Logged {self.trials} trials of the run {self.tracked} in the experiment {self.experiment}.")]


def having(trials: Iterable[Tracked], settings: Mapping[str, str]) -> list[Tracked]:
    """The trials with these parameters; 0.10 is 0.1, and true is True."""
    wanted_params = {plain(name): value for name, value in settings.items()}
    return [trial for trial in trials if _has_params(trial.params, wanted_params)]


def _has_params(params: Mapping[str, str], wanted_params: Mapping[str, str]) -> bool:
    return all(name in params and _same(params[name], value) for name, value in wanted_params.items())


def _same(first: str, second: str) -> bool:
    try:
        return float(first) == float(second)
    except ValueError:
        return first.casefold() == second.casefold()


def best_of(trials: Sequence[Tracked], metric: str, direction: Literal["lower", "higher"]) -> list[Tracked]:
    """The best finished trial by a metric, for each thing that was measured on.

    Raises:
        UnknownNameError: no finished trial has the metric.
    """
    name, done = plain(metric), [trial for trial in trials if trial.status == "finished"]
    groups: dict[str, list[Tracked]] = {}
    for trial in done:
        if name in trial.metrics:
            groups.setdefault(trial.basis, []).append(trial)
    if not groups:
        known_metrics = set(chain.from_iterable(trial.metrics for trial in done))
        raise UnknownNameError("metric", metric, sorted(known_metrics))
    choose = min if direction == "lower" else max
    return [choose(group, key=lambda trial: trial.metrics[name]) for group in groups.values()]
