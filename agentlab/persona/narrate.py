"""What a training says while it goes on."""

from agentlab.runs.events import Event, Narration


def narrate(event: Event) -> Narration | None:
    """A line for each scoring of held-out conversations; steps move the bar."""
    data = event.data
    match event.type:
        case "base.imported":
            return Narration(line=f"  {event.id} imported as a checkpoint that can be trained, {data['seconds']:.0f} s")
        case "data.checked":
            counts = f"{data['conversations']} conversations, {data['held_out']} held out"
            return Narration(line=f"  {event.id}: {counts}, {data['supervised']} tokens to learn")
        case "train.step":
            return Narration(detail=f"{event.id}: loss {data['loss']:.3f}", done=data["step"], total=data["steps"])
        case "train.eval":
            best = ", best so far" if data["best"] else ""
            return Narration(line=f"  {event.id}: step {data['step']}, held-out loss {data['loss']:.4f}{best}")
        case "persona.trained":
            return Narration(line=f"  {event.id}: written to {data['adapter']}")
        case "persona.measured":
            return Narration(detail=f"measuring {event.id}", done=data["done"], total=data["total"])
    return None
