"""What lists and trees need to know of a run, small enough to be kept for thousands; and which run came from which."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentlab.config.yaml_tree import read_yaml
from agentlab.errors import ConfigError, RunUnreadableError
from agentlab.pipeline.items import COPY
from agentlab.runs.compare import ConfigDifference, config_differences
from agentlab.runs.document import AnswerDocument, Block, Code, Text
from agentlab.runs.store import RunRecord

_BOOKKEEPING = ("branch",)  # says where a rerun begins, not what it is
_MOST_CHANGES = 3  # told per run
_INDENT = 60  # characters; deeper branches lose the outermost lines


@dataclass(frozen=True, slots=True)
class StageShare:
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
    shares: tuple[StageShare, ...]
    excerpt: str = ""
    error: str | None = None


def config_of(record: RunRecord) -> dict[str, Any]:
    """The run's config as `by_id`; empty when it is absent or damaged."""
    try:
        data = read_yaml(record.text("config.yaml"), str(record.path / "config.yaml")).data
    except (ConfigError, RunUnreadableError):
        return {}
    config = by_id(data)
    return config if isinstance(config, dict) else {}


def inputs_of(record: RunRecord, config: Mapping[str, Any]) -> dict[str, str]:
    """The run's inputs by the names of their items; the only one has an empty name. What is damaged is left out."""
    try:
        lines = [line for line in record.text(COPY).split("\n") if line.strip()]
    except RunUnreadableError:
        input_text = config.get("input")  # the run ended before it copied its input
        return {"": input_text} if isinstance(input_text, str) else {}
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
            return {id_: by_id(_without_id(item)) for id_, item in zip(ids, value, strict=True)}
    return value


def _without_id(stage: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stage.items() if key != "id"}


def changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[ConfigDifference]:
    """The keys whose values differ between two configs that are `by_id`."""
    keys = {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)}.difference(_BOOKKEEPING)
    before = {key: first[key] for key in keys & first.keys()}
    return config_differences(before, {key: second[key] for key in keys & second.keys()})


def describe_change(change: ConfigDifference) -> str:
    """A difference in one line."""
    return f"{change.key}: {shorten_value(change.first)} → {shorten_value(change.second)}"


def shorten_value(value: Any, limit: int = 60) -> str:
    """A value in at most `limit` characters of one line; an absent one is a dash."""
    text = "–" if value is None else " ".join(str(value).split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


class TreeNode(AnswerDocument):
    """One run. A parent that was removed has the status `removed`; `executed` and `reused` are ids of stages."""

    id: str
    parent: str | None
    depth: int
    status: str
    created: str
    changed: list[ConfigDifference]
    executed: list[str]
    reused: list[str]


class TreeView(AnswerDocument):
    """The answer of `pipeline tree`: every run after the one it came from, siblings in the order of their making."""

    nodes: list[TreeNode]

    def blocks(self) -> list[Block]:
        if not self.nodes:
            return [Text("No pipeline runs yet. Start one: agentlab pipeline demo")]
        lines = [f"{lead}{_line(node)}" for lead, node in zip(_leads(self.nodes), self.nodes, strict=True)]
        return [Code("\n".join(lines))]


def tree(runs: Sequence[Digest]) -> TreeView:
    """The forest of `runs`, which come oldest first. Pure.

    Every run stands in it once, even when damaged manifests name each other, or themselves, as their parents.
    """
    runs_by_id = {run.id: run for run in runs}
    children: dict[str, list[str]] = {}
    for run in runs:
        if run.parent is not None:
            children.setdefault(run.parent, []).append(run.id)
    top = dict.fromkeys(run.id if run.parent is None else run.parent for run in runs if run.parent not in runs_by_id)
    nodes: list[TreeNode] = []
    seen: set[str] = set()
    for start in (*top, *runs_by_id):  # the latter finds those whose descent is a circle
        stack: list[tuple[str, str | None, int]] = [(start, None, 0)]
        while stack:
            id_, parent, depth = stack.pop()
            if id_ in seen:
                continue
            seen.add(id_)
            nodes.append(_node(id_, runs_by_id.get(id_), runs_by_id.get(parent) if parent else None, parent, depth))
            stack += [(child, id_, depth + 1) for child in reversed(children.get(id_, []))]
    return TreeView(nodes=nodes)


def _node(id_: str, run: Digest | None, origin: Digest | None, parent: str | None, depth: int) -> TreeNode:
    shares = () if run is None else run.shares
    return TreeNode(
        id=id_,
        parent=parent,
        depth=depth,
        status="removed" if run is None else run.status,
        created="" if run is None else run.created,
        changed=changes(origin.config, run.config) if run and origin else [],
        executed=[share.stage for share in shares if share.asked],
        reused=[share.stage for share in shares if share.calls and not share.asked],
    )


def _leads(nodes: Sequence[TreeNode]) -> list[str]:
    """What is drawn before each node. Read from the end, so that a line goes down as far as there are siblings."""
    leads: list[str] = []
    open_depths: set[int] = set()  # depths at which a later sibling stands
    for node in reversed(nodes):
        guides = "".join("│  " if depth in open_depths else "   " for depth in range(1, node.depth))
        branch = "" if node.depth == 0 else "├─ " if node.depth in open_depths else "└─ "
        leads.append((guides + branch)[-_INDENT:])
        open_depths = {depth for depth in open_depths if depth < node.depth} | {node.depth}
    return leads[::-1]


def _line(node: TreeNode) -> str:
    parts = [f"{node.id}  {node.status}", *map(describe_change, node.changed[:_MOST_CHANGES])]
    if len(node.changed) > _MOST_CHANGES:
        parts.append(f"and {len(node.changed) - _MOST_CHANGES} more")
    if node.executed:
        parts.append(f"executed {', '.join(node.executed)}")
    if node.reused:
        parts.append(f"reused {', '.join(node.reused)}")
    return "  ".join(parts)
