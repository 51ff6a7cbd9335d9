"""The report of a pipeline's run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentlab.pipeline.graph import Step
from agentlab.pipeline.result import PipelineResult
from agentlab.pipeline.state import Item
from agentlab.runs.document import Block, Code, Heading, Table, Text
from agentlab.runs.report import write_report
from agentlab.runs.run import Run

_MOST_ITEMS, _LONGEST = 20, 20_000


def write_pipeline_report(run: Run, items: Sequence[Item], steps: Sequence[Step], result: PipelineResult) -> None:
    """Write `report.md` and `report.html`: the answer, what each stage said, what it took."""
    blocks: list[Block] = []
    for row in result.items[:_MOST_ITEMS]:
        blocks.append(Heading(f"Answer {row.name}".rstrip()))
        blocks.append(Code(_cut(row.answer)) if row.error is None else Text(f"It failed: {row.error}"))
    if len(items) > _MOST_ITEMS:
        blocks.append(Text(f"{len(items) - _MOST_ITEMS} more answers are in outputs.jsonl."))
    blocks += [Heading("What it took"), *result.tables()]
    if len(items) == 1:
        blocks += [Heading("Stages"), *_stages(items[0], steps)]
    write_report(run, f"Pipeline {run.id}", blocks)


def _stages(item: Item, steps: Sequence[Step]) -> Iterator[Block]:
    yield Text("Input")
    yield Code(_cut(item.text))
    for step in steps:
        end = item.ended.get(step.id)
        if end is None or end.status == "over":
            continue
        method = f", by {end.why['method']}" if "method" in end.why else ""
        yield Text(f"{step.id}: {end.status}{method}")
        yield Code(_cut(end.answer))
        yield from _why(end.why)


def _why(why: Mapping[str, Any]) -> Iterator[Block]:
    """How several answers became one: the tally of a vote as a table, of other methods what was noted."""
    if "tally" in why:
        rows = [(each["vote"], f"{each['weight']:g}", str(len(each["candidates"]))) for each in why["tally"]]
        rows += [("(no vote)", "", str(why["abstained"]))] if why["abstained"] else []
        yield Table(("vote", "weight", "answers"), rows, "What the answers voted for")
    rest = {key: value for key, value in why.items() if key not in ("method", "tally", "abstained", "chosen")}
    if any(value not in (False, [], {}) for value in rest.values()):
        yield Text(json.dumps(rest, ensure_ascii=False)[:500])


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n[{len(text) - _LONGEST} characters more]"
