"""What a study says while it runs."""

from typing import Any

from agentlab.runs.document import number
from agentlab.runs.events import Event, Narration


def narrate(event: Event) -> Narration | None:
    """One line per trial; epochs only move the bar."""
    data = event.data
    match event.type:
        case "study.opened":
            return Narration(line=data["summary"], done=data["done"], total=data["trials"])
        case "reference.measured":
            return Narration(line=f"  {data['name']:<10} validation MSE {number(data['val_mse'])}  {data['note']}")
        case "trial.started":
            return Narration(detail=f"{event.id}: starting")
        case "trial.epoch":
            return Narration(detail=f"{event.id}: epoch {data['epoch']}, validation MSE {number(data['val_mse'])}")
        case "trial.failed":
            return Narration(line=f"  {event.id}  failed: {data['error']}")
        case "decision.made":
            return Narration(line=_line(event.id, data), done=int(event.id.rpartition("_")[2]) + 1)
        case "search.exhausted":
            return Narration(line=f"  search ends early: {data['reason']}")
        case "winner.scored":
            return Narration(line=f"  winner {event.id}: test MSE {number(data['mse'])}", detail="writing the report")
    return None


def _line(name: str, data: dict[str, Any]) -> str | None:
    if data["val_mse"] is None:
        return None  # its failure was told already
    mark = "*" if data["accepted"] else " "
    judge = "" if data["by"] == "rule" else f" ({data['by']})"
    return f"{mark} {name}  validation MSE {number(data['val_mse'])}  {data['source']:<10} {data['reason']}{judge}"
