"""What the headline figures of a run were measured on: two runs can be compared only where that is the same."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentlab.config.base import flatten
from agentlab.runs.events import Event
from agentlab.runs.manifest import Metric

_SHOWN = 60  # characters of a value


@dataclass(frozen=True, slots=True)
class Basis:
    """Of a command: which of its config keys, and which event, say what it measures on. It stands beside the config."""

    keys: tuple[str, ...] = ()  # whatever differs here makes other figures
    # The same, for keys that only name the data: of two files with the same content either will do.
    data_keys: tuple[str, ...] = ()
    event: tuple[str, ...] = ("",)  # its type, and the fields that hold hashes of the data


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A run's figures and where they are from."""

    command: str
    config: Mapping[str, Any]
    events: Sequence[Event] = ()
    metrics: Mapping[str, Metric] = field(default_factory=dict)


def differences(first: MeasuredRun, second: MeasuredRun, basis: Basis) -> list[str]:
    """Why no figure of one run can be held against one of the other; empty where they can. Pure.

    `basis` is that of the command, if it is the same.
    """
    if first.command != second.command:
        return [f"the runs are from different commands, {first.command} and {second.command}"]
    a, b = _data(first.events, basis), _data(second.events, basis)
    both_known = bool(a) and bool(b)
    keys = basis.keys if both_known and a == b else basis.keys + basis.data_keys
    reasons = _describe_differences(keys, flatten(first.config), flatten(second.config))
    if both_known and a != b and not reasons:
        reasons = ["the data files differ"]
    return reasons


def digest(run: MeasuredRun, basis: Basis) -> str:
    """A name for what a run measured on: `differences` finds none between runs with the same name. Pure."""
    data = _data(run.events, basis)
    settings = _select_keys(basis.keys if data else basis.keys + basis.data_keys, flatten(run.config))
    text = json.dumps([run.command, data, settings], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def other_figures(first: Mapping[str, Metric], second: Mapping[str, Metric]) -> dict[str, str]:
    """The figures that bear one name and are not the same thing, and why. Pure."""

    def describe_metric(metric: Metric) -> str:
        return f"{metric.unit or 'a number'}, {metric.direction} is better"

    return {
        name: f"{name}: {describe_metric(first[name])}, versus {describe_metric(second[name])}"
        for name in sorted(first.keys() & second.keys())
        if describe_metric(first[name]) != describe_metric(second[name])
    }


def _data(events: Sequence[Event], basis: Basis) -> dict[str, str]:
    """Hashes of the data, by what they are of."""
    kind, *names = basis.event
    hashes: dict[str, str] = {}
    for event in events:
        if event.type == kind:
            hashes |= {f"{event.id}.{name}": str(event.data[name]) for name in names if name in event.data}
    return hashes


def _describe_differences(keys: Sequence[str], first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    first_values, second_values = _select_keys(keys, first), _select_keys(keys, second)
    return [
        f"{name}: {_shorten_value(first_values.get(name))} versus {_shorten_value(second_values.get(name))}"
        for name in sorted(first_values.keys() | second_values.keys())
        if first_values.get(name) != second_values.get(name)
    ]


def _select_keys(keys: Sequence[str], flat: Mapping[str, Any]) -> dict[str, Any]:
    below = tuple(f"{key}." for key in keys)
    return {name: value for name, value in flat.items() if name in keys or name.startswith(below)}


def _shorten_value(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
