"""What a benchmark says while it runs, and the answer of `agentlab llm-bench`, as data."""

from collections.abc import Mapping
from typing import Any

from agentlab.bench.check.result import CheckResult
from agentlab.bench.config import Measure
from agentlab.bench.load.result import LoadResult
from agentlab.bench.load.tables import milliseconds, summary
from agentlab.bench.quality.result import QualityResult
from agentlab.runs.document import AnswerDocument, Block
from agentlab.runs.events import Event, Narration


class BenchResult(AnswerDocument):
    """A finished run; one of `load`, `check` and `quality` is there, as `measure` says."""

    measure: Measure
    load: LoadResult | None = None
    check: CheckResult | None = None
    quality: QualityResult | None = None

    def blocks(self) -> list[Block]:
        if self.load is not None:
            return summary(self.load)
        part = self.check or self.quality
        return part.blocks() if part else []


def narrate(event: Event) -> Narration | None:
    """One line per stage, checked model or scored item group; requests move the bar."""
    data = event.data
    match event.type:
        case "ceiling.measured":
            short, long = f"{data['short']:.0f} requests/s with one-token answers", f"{data['long']:.0f}"
            return Narration(line=f"  this client: at most {short}, {long} with {data['tokens']} tokens")
        case "stage.started":
            return Narration(detail=f"{data['target']}, {data['load']}", done=0, total=data["requests"])
        case "stage.progress":
            return Narration(done=data["ended"], total=data["requests"])
        case "stage.finished":
            return Narration(line=f"  {_stage(data)}", done=data["answered"])
        case "model.checked":
            took = "" if data["seconds"] is None else f", {data['seconds']:.2f} s"
            return Narration(line=f"  {event.id}: answered {data['answered']} of {data['asked']}{took}")
        case "answer.given":
            return Narration(detail=event.id)
        case "priors.saved":
            return Narration(line=f"  {data['samples']} requests recorded in the workspace's ledger")
    return None


def _stage(data: Mapping[str, Any]) -> str:
    speed = f"first token {milliseconds(data['ttft_ms'])}, last {milliseconds(data['e2e_ms'])}"
    speed_note = speed if data["answered"] else "no answer"
    return (
        f"{data['target']}  {data['load']}: {data['answered']} of {data['requests']} answered, "
        f"{data['request_rate']:.4g}/s, {speed_note}"
    )
