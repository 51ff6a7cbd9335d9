"""What a study says while it runs."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from agentlab.runs.debug import as_json, indented
from agentlab.runs.document import number
from agentlab.runs.events import Event, Narration


def narrate(event: Event) -> Narration | None:
    """One line per training; epochs move the bar, and are told with -v, as are calls of the language model."""
    data = event.data
    match event.type:
        case "study.opened":
            return Narration(line=data["summary"], done=data["done"], total=data["trials"])
        case "study.branched":
            who = "with the language model" if data["agent"] else "without language model"
            return Narration(line=f"paired study {data['place']} of {data['of']}, {who}, seed {data['seed']}")
        case "trial.retried":
            return Narration(line=f"  {event.id}  once more in a new process: {data['reason']}")
        case "reference.measured":
            return Narration(line=f"  {data['name']:<10} validation MSE {number(data['val_mse'])}  {data['note']}")
        case "llm.called":
            return Narration(verbose=_call(event.id, data))
        case "decision.made":
            return Narration(line=_decision(event.id, data), done=_judged(event.id))
        case "search.exhausted":
            return Narration(line=f"  search ends early: {data['reason']}")
        case "winner.scored":
            errors = data["mse"]
            mean = f", mean of {len(errors)} trainings" if len(errors) > 1 else ""
            line = f"  winner {event.id}: test MSE {number(fmean(errors))}{mean}"
            return Narration(line=line, detail="writing the report")
    return _training(event)


def _training(event: Event) -> Narration | None:
    """What happens to a trial before it is judged."""
    data = event.data
    match event.type:
        case "proposal.refused":
            return Narration(line=f"  {event.id}  turned down, proposed by {data['source']}")
        case "trial.started":
            return Narration(detail=f"{event.id}: starting")
        case "trial.epoch":
            epoch, error = f"{event.id} epoch {data['epoch']}", f"validation MSE {number(data['val_mse'])}"
            line = f"  {epoch}: training loss {number(data['train_loss'])}, {error}"
            return Narration(detail=f"{epoch}: {error}", verbose=line)
        case "trial.finished" if "-" in event.id.rpartition("/")[2]:  # the first training is told with its decision
            return Narration(line=f"  {event.id}  validation MSE {number(data['value'])}  trained again")
        case "trial.failed":
            return Narration(line=f"  {event.id}  failed: {data['error']}")
        case "repeat.wanted":
            return Narration(line=f"  {event.id}  to be trained again: {data['reason']}")
    return None


def _decision(name: str, data: Mapping[str, Any]) -> str | None:
    if data["val_mse"] is None:
        return None  # its failure was told already
    mark = "*" if data["accepted"] else " "
    judge = "" if data["by"] == "rule" else f" ({data['by']})"
    return f"{mark} {name}  validation MSE {number(data['val_mse'])}  {data['source']:<10} {data['reason']}{judge}"


def _judged(name: str) -> int | None:
    """How many trials are done with this one. A study beside the main one does not move the bar."""
    return None if "/" in name else int(name.rpartition("_")[2]) + 1


def _call(name: str, data: Mapping[str, Any]) -> str:
    """Which model answered at what length, or why none did; attempts that failed are counted."""
    failed = [attempt for attempt in data["attempts"] if attempt["error"]]
    if data["error"]:
        return f"  {name}: no answer, {len(failed)} failed: {data['error']['message']}"
    usage = data["usage"]
    asked, said = ("?" if usage[key] is None else usage[key] for key in ("input_tokens", "output_tokens"))
    before = f", after {len(failed)} failed: {failed[-1]['message']}" if failed else ""
    return f"  {name}: {data['model']} answered, {asked} + {said} tokens{before}"


def reviewed(events: Sequence[Event]) -> bool:
    """Whether the latest session of a run asked a person before each trial."""
    opened = [event.data for event in events if event.type == "study.opened"]
    return bool(opened) and bool(opened[-1].get("reviewed"))


class Proposals:
    """What `--debug` tells of proposals: who made one and why, and what it changes on the best of its study so far."""

    def __init__(self) -> None:
        self._tried: dict[str, Mapping[str, Any]] = {}  # params by trial
        self._best: dict[str, Mapping[str, Any]] = {}  # params by what stands before the slash: the study

    def __call__(self, event: Event) -> str | None:
        """The text for a proposal; None for any other event, from which the best is learnt."""
        study = event.id.rpartition("/")[0]
        if event.type == "trial.proposed":
            self._tried[event.id] = event.data["params"]
            return _proposal(event, self._best.get(study))
        if event.type == "decision.made" and event.data["accepted"] and event.id in self._tried:
            self._best[study] = self._tried[event.id]
        return None


def _proposal(event: Event, best: Mapping[str, Any] | None) -> str:
    data, params = event.data, event.data["params"]
    head = f"{event.id} proposed by {data['source']}"
    if data.get("note"):
        head += f": {data['note']}"
    if best is None:
        return indented(head, [f"{name}: {as_json(value)}" for name, value in params.items()])
    names = [name for name in dict.fromkeys([*best, *params]) if best.get(name) != params.get(name)]
    lines = [f"{name}: {_of(best, name)} -> {_of(params, name)}" for name in names]
    return indented(f"{head}; against the best so far:", lines or ["no difference"])


def _of(params: Mapping[str, Any], name: str) -> str:
    return as_json(params[name]) if name in params else "(inactive)"
