"""What lists and trees need to know of a run: small enough to be kept for thousands of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentlab.config.yaml_tree import read_yaml
from agentlab.errors import ConfigError, RunUnreadableError
from agentlab.pipeline.items import COPY
from agentlab.runs.compare import ConfigDifference, config_differences
from agentlab.runs.store import RunRecord

_BOOKKEEPING = ("branch",)  # says where a rerun begins, not what it is


@dataclass(frozen=True, slots=True)
class Share:
    """How many calls a stage took, and how many of them were put to a model; the others were known already."""

    stage: str
    calls: int
    asked: int


@dataclass(frozen=True, slots=True)
class Digest:
    """One run. `config` is its config as `by_id`; `excerpt` is the beginning of its input."""

    id: str
    parent: str | None
    status: str
    created: str
    seconds: float
    config: Mapping[str, Any]
    shares: tuple[Share, ...]
    excerpt: str = ""
    error: str | None = None


def config_of(record: RunRecord) -> dict[str, Any]:
    """The run's config as `by_id`; empty when it is absent or damaged."""
    try:
        data = read_yaml(record.text("config.yaml"), str(record.path / "config.yaml")).data
    except (ConfigError, RunUnreadableError):
        return {}
    found = by_id(data)
    return found if isinstance(found, dict) else {}


def inputs_of(record: RunRecord, config: Mapping[str, Any]) -> dict[str, str]:
    """The run's inputs by the names of their items; the only one has an empty name. What is damaged is left out."""
    try:
        lines = [line for line in record.text(COPY).split("\n") if line.strip()]
    except RunUnreadableError:
        given = config.get("input")  # the run ended before it copied its input
        return {"": given} if isinstance(given, str) else {}
    texts = {number: text for number, line in enumerate(lines, 1) if (text := _input(line)) is not None}
    if config.get("inputs") is None:
        return {"": next(iter(texts.values()))} if texts else {}
    digits = max(4, len(str(len(lines))))
    return {f"{number:0{digits}}": text for number, text in texts.items()}


def _input(line: str) -> str | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    text = value.get("input") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def by_id(value: Any) -> Any:
    """The same data with its stages under their ids, as in `--set base_pipeline.stages.draft.temperature=0.2`."""
    if isinstance(value, Mapping):
        return {key: by_id(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        ids = [item.get("id") if isinstance(item, Mapping) else None for item in value]
        if ids and all(isinstance(id_, str) for id_ in ids) and len(set(ids)) == len(ids):
            return {
                id_: by_id({k: v for k, v in item.items() if k != "id"}) for id_, item in zip(ids, value, strict=True)
            }
    return value


def changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[ConfigDifference]:
    """The keys whose values differ between two configs that are `by_id`."""
    keys = [
        key for key in first.keys() | second.keys() if key not in _BOOKKEEPING and first.get(key) != second.get(key)
    ]
    return config_differences(
        {key: first[key] for key in keys if key in first}, {key: second[key] for key in keys if key in second}
    )


def told(change: ConfigDifference) -> str:
    """A difference in one line."""
    return f"{change.key}: {shown(change.first)} → {shown(change.second)}"


def shown(value: Any, most: int = 60) -> str:
    """A value in at most `most` characters of one line; an absent one is a dash."""
    text = "–" if value is None else " ".join(str(value).split())
    return text if len(text) <= most else f"{text[: most - 1]}…"
