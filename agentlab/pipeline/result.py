"""What a pipeline says while it runs, and what it came to: answers, and per stage and model what they took."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from agentlab.pipeline.branches.trace import item_of, stage_of
from agentlab.pipeline.graph import PipelineStep
from agentlab.pipeline.known_answers import ANSWERED
from agentlab.pipeline.state import PipelineItem
from agentlab.runs.document import (
    AnswerDocument,
    Block,
    Code,
    Column,
    Heading,
    Plain,
    Report,
    Table,
    Text,
    columns_of,
    mebibytes,
    silence,
    table,
)
from agentlab.runs.events import Event, Narration
from agentlab.runs.run import OpenRun

_MOST_ITEMS, _LONGEST = 20, 20_000
_MIB = 1 << 20
_FROM = {"cache": "known from an earlier run", "parent": "taken over"}


class ItemResult(Plain):
    """One input's end. `name` is empty when there was one input only."""

    name: str
    answer: str
    error: str | None = None


class StageResult(Plain):
    """All answers of a stage. Tokens and seconds are of those that a model gave in this run; None is not measured."""

    stage: Annotated[str, Column("stage")]
    answers: Annotated[int, Column("answers")]
    asked: Annotated[int, Column("model calls", help="Answers that a model was asked for; the others were reused.")]
    failed: Annotated[int, Column("failed")]
    prompt_tokens: Annotated[int | None, Column("prompt tokens")]
    reused_tokens: Annotated[int | None, Column("from prefix cache", help="Prompt tokens that were not read again.")]
    completion_tokens: Annotated[int | None, Column("written")]
    prefill_rate: Annotated[float | None, Column("read/s", ".0f", "Prompt tokens per second.")]
    decode_rate: Annotated[float | None, Column("written/s", ".1f", "Written tokens per second.")]
    seconds: Annotated[float, Column("seconds", ".2f")]
    cost_usd: float | None


class PipelineModelResult(Plain):
    """One local model in memory."""

    model: Annotated[str, Column("model")]
    loads: Annotated[int, Column("loads")]
    load_seconds: Annotated[float, Column("load seconds", ".2f")]
    estimate_bytes: Annotated[int, Column("planned MiB", mebibytes)]
    resident_bytes: Annotated[int, Column("loaded MiB", mebibytes)]
    peak_bytes: Annotated[int | None, Column("peak MiB", mebibytes, "Most that was resident, shared pages included.")]


class PipelineResult(AnswerDocument):
    """The answer of `agentlab pipeline`."""

    items: list[ItemResult]
    stages: list[StageResult]
    models: list[PipelineModelResult]
    loads: int
    reused: int
    silent: list[str] = Field(default_factory=list)

    def blocks(self) -> list[Block]:
        if len(self.items) == 1 and not self.items[0].name:
            return [Code(self.items[0].answer)]
        failed = [item for item in self.items if item.error is not None]
        sentence = f"{len(self.items) - len(failed)} of {len(self.items)} inputs were answered; see outputs.jsonl."
        errors = Table(("input", "error"), [(item.name, item.error or "") for item in failed], "Inputs that failed")
        return [Text(sentence), *map(Text, self.silent), *([errors] if failed else [])]

    def tables(self) -> list[Block]:
        shown = [name for name in StageResult.model_fields if name != "cost_usd"]
        caption = "Each stage: answers, model calls, tokens, and tokens per second"
        stages = table(self.stages, columns_of(StageResult, *shown), caption)
        models = table(self.models, columns_of(PipelineModelResult, *PipelineModelResult.model_fields), "Local models")
        return [*map(Text, self.silent), stages, *([models] if self.models else [])]


def stage_results(names: Sequence[str], events: Iterable[Event]) -> list[StageResult]:
    """One row per stage, in the order of `names`."""
    answered: dict[str, list[Event]] = {name: [] for name in names}
    failed = dict.fromkeys(names, 0)
    for event in events:
        if event.type == ANSWERED:
            answered[stage_of(event.id)].append(event)
        elif event.type == "call.failed":
            failed[stage_of(event.id)] += 1
    return [_stage(name, answered[name], failed[name]) for name in names]


def _stage(name: str, events: Sequence[Event], failed: int) -> StageResult:
    answers = [event.data["answer"] for event in events if event.data["from"] == "model"]

    def total(field: str) -> Any:
        known_values = [answer[field] for answer in answers if answer[field] is not None]
        return sum(known_values) if known_values else None

    read, written = total("prefill_seconds"), total("decode_seconds")
    fresh = (total("prompt_tokens") or 0) - (total("reused_tokens") or 0)
    return StageResult(
        stage=name,
        answers=len(events),
        asked=len(answers),
        failed=failed,
        prompt_tokens=total("prompt_tokens"),
        reused_tokens=total("reused_tokens"),
        completion_tokens=total("completion_tokens"),
        prefill_rate=fresh / read if read else None,
        decode_rate=(total("completion_tokens") or 0) / written if written else None,
        seconds=(read or 0.0) + (written or 0.0),
        cost_usd=total("cost_usd"),
    )


def model_results(events: Iterable[Event]) -> list[PipelineModelResult]:
    """One row per local model that was loaded, in the order of their first loads."""
    rows: dict[str, PipelineModelResult] = {}
    for event in events:
        data, before = event.data, rows.get(event.id)
        if event.type == "model.loaded":
            rows[event.id] = PipelineModelResult(
                model=event.id,
                loads=1 + (before.loads if before else 0),
                load_seconds=data["seconds"] + (before.load_seconds if before else 0.0),
                estimate_bytes=max(data["estimate_bytes"], before.estimate_bytes if before else 0),
                resident_bytes=max(data["resident_bytes"], before.resident_bytes if before else 0),
                peak_bytes=before.peak_bytes if before else None,
            )
        elif event.type == "model.evicted" and before is not None and data["peak_bytes"] is not None:
            rows[event.id] = before.model_copy(update={"peak_bytes": max(data["peak_bytes"], before.peak_bytes or 0)})
    return list(rows.values())


def silent(events: Iterable[Event]) -> list[str]:
    """Sentences on models that were asked and never answered."""
    failed: dict[str, list[str]] = {}
    answered: set[str] = set()
    for event in events:
        if event.type == "call.failed":
            failed.setdefault(event.data["model"], []).append(event.data["message"])
        elif event.type == ANSWERED:
            answered.add(event.data["answer"]["model"])
    return [silence(model, len(messages), messages[-1]) for model, messages in failed.items() if model not in answered]


def pipeline_report(
    run: OpenRun, items: Sequence[PipelineItem], steps: Sequence[PipelineStep], result: PipelineResult
) -> Report:
    """The answers, what each stage said, and what it took."""
    blocks: list[Block] = []
    for row in result.items[:_MOST_ITEMS]:
        blocks.append(Heading(f"Answer {row.name}".rstrip()))
        blocks.append(Code(_cut(row.answer)) if row.error is None else Text(f"It failed: {row.error}"))
    if len(items) > _MOST_ITEMS:
        blocks.append(Text(f"{len(items) - _MOST_ITEMS} more answers are in outputs.jsonl."))
    blocks += [Heading("What it took"), *result.tables()]
    if len(items) == 1:
        blocks += [Heading("Stages"), *_stages(items[0], steps)]
    answered = sum(item.error is None for item in result.items)
    inputs = "1 input" if len(items) == 1 else f"{len(items)} inputs"
    stages = ", ".join(stage.stage for stage in result.stages)
    asked, seconds = sum(stage.asked for stage in result.stages), sum(stage.seconds for stage in result.stages)
    return Report(
        title=f"Pipeline of {stages} on {inputs}",
        verdict=[
            f"{answered} of {inputs} answered with {asked} model calls, {seconds:.1f} s of model time, "
            f"{result.reused} answers reused."
        ],
        facts={"model": ", ".join(model.model for model in result.models) or "remote models", "data": inputs},
        body=blocks,
        next_step=f"agentlab pipeline why {run.id} {result.stages[-1].stage}",
        caveats=result.silent,
    )


def _stages(item: PipelineItem, steps: Sequence[PipelineStep]) -> Iterator[Block]:
    yield Text("Input")
    yield Code(_cut(item.text))
    for step in steps:
        end = item.ended.get(step.id)
        if end is None or end.status == "over":
            continue
        method = f", by {end.why['method']}" if "method" in end.why else ""
        yield Text(f"{step.id}: {end.status}{method}")
        yield Code(_cut(end.answer))
        yield from _explanation_blocks(end.why)


def _explanation_blocks(explanation: Mapping[str, Any]) -> Iterator[Block]:
    """How several answers became one: the tally of a vote as a table, of other methods what was noted."""
    if "tally" in explanation:
        rows = [
            (group["vote"], f"{group['weight']:g}", str(len(group["candidates"]))) for group in explanation["tally"]
        ]
        rows += [("(no vote)", "", str(explanation["abstained"]))] if explanation["abstained"] else []
        yield Table(("vote", "weight", "answers"), rows, "What the answers voted for")
    details = {key: note for key, note in explanation.items() if key not in ("method", "tally", "abstained", "chosen")}
    if any(note not in (False, [], {}) for note in details.values()):
        yield Text(json.dumps(details, ensure_ascii=False)[:500])


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n[{len(text) - _LONGEST} characters more]"


def narrate(event: Event) -> Narration | None:
    """Text as it comes, one line per answer, load and failure; of a batch, the bar alone."""
    data, batch = event.data, bool(item_of(event.id))
    match event.type:
        case "call.text":
            return None if batch else Narration(detail=event.id, piece=data["text"])
        case "work.progress":
            return Narration(done=data["done"], total=data["total"])
        case "model.loaded":
            size = f"{data['resident_bytes'] / _MIB:.0f} MiB" if data["resident_bytes"] else "size unknown"
            return Narration(line=f"  loaded {event.id} in {data['seconds']:.2f} s, {size}")
        case "engine.settled":
            return Narration(line=f"  {event.id} runs with plainer settings: {data['why']}") if data["why"] else None
        case "model.silent":
            return Narration(line=f"  {data['said']}")
        case "parent.gone":
            return Narration(line=f"  the run {event.id} is gone; its answers are looked for in the store")
        case "model.evicted":
            return Narration(verbose=f"  unloaded {event.id}")
        case "call.failed":
            next_note = f"; next: {data['rung']}" if data["rung"] != "none" else ""
            return Narration(
                line=f"  {event.id}: {data['model']} failed ({data['kind']}){next_note}", verbose=data["message"]
            )
        case "stage.finished" if data["status"] != "done":
            line = f"  {event.id}: {data['status']}"
            return Narration(verbose=line) if batch or data["status"] == "over" else Narration(line=line)
    if event.type == ANSWERED:
        line = f"  {event.id}: {_answer(data)}"
        return Narration(detail=event.id, verbose=line) if batch else Narration(line=line)
    return None


def _answer(data: Mapping[str, Any]) -> str:
    answer = data["answer"]
    if data["from"] != "model":
        return _FROM[data["from"]]
    tokens, seconds = answer["completion_tokens"], answer["decode_seconds"]
    model_note = answer["model"] if tokens is None else f"{answer['model']}, {tokens} tokens"
    speed = f", {tokens / seconds:.0f}/s" if tokens and seconds else ""
    reused = f", {answer['reused_tokens']} of {answer['prompt_tokens']} read before" if answer["reused_tokens"] else ""
    return model_note + speed + reused
