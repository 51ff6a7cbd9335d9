"""The report of a pipeline's run."""

import json
from collections.abc import Iterator, Sequence

from agentlab.pipeline.graph import Step
from agentlab.pipeline.result import PipelineResult
from agentlab.pipeline.state import Item
from agentlab.runs.document import Block, Code, Heading, Text
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
        yield Text(f"{step.id}: {end.status}" + (f" ({_why(end.why)})" if end.why else ""))
        yield Code(_cut(end.answer))


def _why(why: object) -> str:
    return json.dumps(why, ensure_ascii=False)[:500]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n[{len(text) - _LONGEST} characters more]"
