"""What a pipeline says while it runs."""

from collections.abc import Mapping
from typing import Any

from agentlab.pipeline.branches.trace import item_of
from agentlab.pipeline.memo import ANSWERED
from agentlab.runs.events import Event, Narration

_MIB = 1 << 20
_FROM = {"cache": "known from an earlier run", "parent": "taken over"}


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
            then = f"; next: {data['rung']}" if data["rung"] != "none" else ""
            return Narration(
                line=f"  {event.id}: {data['model']} failed ({data['kind']}){then}", verbose=data["message"]
            )
        case "stage.finished" if data["status"] != "done":
            said = f"  {event.id}: {data['status']}"
            return Narration(verbose=said) if batch or data["status"] == "over" else Narration(line=said)
    if event.type == ANSWERED:
        said = f"  {event.id}: {_answer(data)}"
        return Narration(detail=event.id, verbose=said) if batch else Narration(line=said)
    return None


def _answer(data: Mapping[str, Any]) -> str:
    answer = data["answer"]
    if data["from"] != "model":
        return _FROM[data["from"]]
    tokens, seconds = answer["completion_tokens"], answer["decode_seconds"]
    said = answer["model"] if tokens is None else f"{answer['model']}, {tokens} tokens"
    speed = f", {tokens / seconds:.0f}/s" if tokens and seconds else ""
    reused = f", {answer['reused_tokens']} of {answer['prompt_tokens']} read before" if answer["reused_tokens"] else ""
    return said + speed + reused
