"""What a study of this capability says while it runs."""

from statistics import fmean

from agentlab.nas.study import WORDS
from agentlab.runs.document import number
from agentlab.runs.events import Event, Narration
from agentlab.study import narrate as study


def narrate(event: Event) -> Narration | None:
    """What every study says; epochs move the bar, and are told with -v."""
    data = event.data
    match event.type:
        case "reference.measured":
            return Narration(line=f"  {data['name']:<10} validation MSE {number(data['val_mse'])}  {data['note']}")
        case "winner.scored":
            errors = data["mse"]
            mean = f", mean of {len(errors)} trainings" if len(errors) > 1 else ""
            line = f"  winner {event.id}: test MSE {number(fmean(errors))}{mean}"
            return Narration(line=line, detail="writing the report")
        case "trial.epoch":
            epoch, error = f"{event.id} epoch {data['epoch']}", f"validation MSE {number(data['val_mse'])}"
            line = f"  {epoch}: training loss {number(data['train_loss'])}, {error}"
            return Narration(detail=f"{epoch}: {error}", verbose=line)
    return study.narrate(event, WORDS)
