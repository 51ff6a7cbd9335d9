"""A run and its trials as trackers of experiments know them: runs with parameters, metrics and tags. Pure."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from agentlab.commands import command
from agentlab.config.base import flatten
from agentlab.errors import UnknownNameError
from agentlab.runs.compare import measured
from agentlab.runs.document import Block, Document, Plain, Text, table
from agentlab.runs.events import Event
from agentlab.runs.measured import digest
from agentlab.runs.store import RunRecord
from agentlab.study.state import TrialState, rebuild

_LONGEST_NAME, _LONGEST_TEXT = 240, 5000  # MLflow takes 250, and 6000 in a parameter


@dataclass(frozen=True, slots=True)
class Entry:
    """What becomes one run of a tracker. `status` is finished, stopped early, failed or running; times in seconds."""

    name: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    began: float
    ended: float


def entries(record: RunRecord) -> Iterator[Entry]:
    """The run itself, then the trials of all its studies.

    Raises:
        ConfigError, RunUnreadableError: its config or its events are damaged.
    """
    manifest, events, found = record.manifest, record.events(), measured(record)
    began = datetime.fromisoformat(manifest.created).timestamp()
    words = {"completed": "finished", "created": "running", "interrupted": "stopped early"}
    yield Entry(
        record.id,
        words.get(record.status, record.status),
        _texts(flatten(found.config)),
        _numbers({name: metric.value for name, metric in manifest.metrics.items()}),
        _texts({"seed": manifest.seed, "version": manifest.versions.get("agentlab"), "events": len(events)}),
        began,
        max([began, *(event.t for event in events[-1:])]),
    )
    basis = command(manifest.command).basis()
    known, parts = digest(found, basis), {event.id for event in events if event.type == basis.event[0]}
    studies = _studies(events)
    trials = [(name, trial) for name, each in studies.items() for trial in rebuild(each).trials]
    whole = max((len(trial.result.items) for _, trial in trials if trial.result), default=0)
    for name, trial in trials:
        part = name.partition("/")[0]  # of several bases each is another thing to measure
        where = f"{known}/{part}" if part and part in parts else known
        times = [event.t for event in studies[name] if event.id == trial.id]
        yield _entry(f"{name}/{trial.id}".lstrip("/"), trial, whole, where, times)


def _studies(events: Sequence[Event]) -> dict[str, list[Event]]:
    """The events of each study by its name, which is empty for the main one."""
    names = dict.fromkeys(event.id.rpartition("/")[0] for event in events if event.type == "trial.proposed")
    return {
        name: [replace(e, id=e.id.removeprefix(f"{name}/")) for e in events if e.id.rpartition("/")[0] == name]
        for name in names
    }


def _entry(name: str, trial: TrialState, whole: int, basis: str, times: Sequence[float]) -> Entry:
    result, proposal, decision = trial.result, trial.proposal, trial.decision
    status: str = result.status if result else "running"
    if result and status == "finished" and len(result.items) < whole:
        status = "stopped early"  # what it scored is of fewer items
    said = {
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
    tags = _texts({key: value for key, value in said.items() if value not in (None, "")})
    return Entry(name, status, _texts(proposal.params), _numbers(metrics), tags, times[0], times[-1])


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    texts = {name: str(value) for name, value in _named(values).items()}
    return {name: text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..." for name, text in texts.items()}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    kept = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in _named(kept).items()}


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """With names that trackers take; of two that would be one, the second says which it is."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = plain(key)
        if name in found:
            name += f"_{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        found[name] = value
    return found


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


class TrackedTrials(Document):
    """The answer of a question to a tracker; `metric` is what the trials were chosen by."""

    trials: list[Tracked]
    metric: str = "value"

    def blocks(self) -> list[Block]:
        """A row for each trial."""
        if not self.trials:
            return [Text("No trial that was logged is like this. See: agentlab runs mlflow log --help")]
        columns: dict[str, Callable[[Tracked], str | float | None]] = {
            "run": lambda each: each.run,
            "trial": lambda each: each.trial,
            "measured on": lambda each: each.basis,
            "source": lambda each: each.source,
            "status": lambda each: each.status,
            self.metric: lambda each: each.metrics.get(self.metric),
            "parameters": lambda each: ", ".join(f"{name}={value}" for name, value in each.params.items()),
        }
        return [table(self.trials, columns)]


class Logged(Document):
    """The answer of logging a run: where it lies, and how many trials it has."""

    experiment: str
    tracked: str
    trials: int

    def blocks(self) -> list[Block]:
        return [Text(f"{self.trials} trials of the run {self.tracked} of the experiment {self.experiment}.")]


def having(trials: Iterable[Tracked], settings: Mapping[str, str]) -> list[Tracked]:
    """The trials with these parameters; 0.10 is 0.1, and true is True."""
    asked = {plain(name): value for name, value in settings.items()}
    return [
        each
        for each in trials
        if all(name in each.params and _same(each.params[name], value) for name, value in asked.items())
    ]


def _same(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return one.casefold() == other.casefold()


def best_of(trials: Sequence[Tracked], metric: str, direction: Literal["lower", "higher"]) -> list[Tracked]:
    """The best finished trial by a metric, for each thing that was measured on.

    Raises:
        UnknownNameError: no finished trial has the metric.
    """
    name, done = plain(metric), [each for each in trials if each.status == "finished"]
    groups: dict[str, list[Tracked]] = {}
    for each in done:
        if name in each.metrics:
            groups.setdefault(each.basis, []).append(each)
    if not groups:
        raise UnknownNameError("metric", metric, sorted({known for each in done for known in each.metrics}))
    choose = min if direction == "lower" else max
    return [choose(group, key=lambda each: each.metrics[name]) for group in groups.values()]
