"""What language models did in a run, told from its events: who was asked, what was usable, what won, what it cost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from agentlab.llm.recorder import CALLED, usage_from
from agentlab.llm.types import Usage
from agentlab.nas.evaluator import TASK as EVALUATE
from agentlab.nas.result import ModelRow, Planner
from agentlab.nas.state import Opinion
from agentlab.nas.study import PROPOSE
from agentlab.runs.events import Event

_AGENT = "llm"  # source of a trial that a model has proposed; `llm->gp` is a stand-in


@dataclass
class _Tally:
    """Counts of one model in one task. `trials` are those that its proposals became, by id."""

    calls: int = 0
    answered: int = 0
    usable: int = 0
    trials: set[str] = field(default_factory=set)
    checked: int = 0
    agreed: int = 0
    reason: str = ""  # of its last failure
    usage: Usage = field(default_factory=Usage)


def totals(events: Iterable[Event], usage: Usage) -> Planner:
    """All calls of the run, over all its sessions."""
    calls = [event.data for event in events if event.type == CALLED]
    usage = usage if calls else Usage(0, 0, 0.0)  # nobody was asked: that is known
    return Planner(
        calls=len(calls),
        answered=sum(call["error"] is None for call in calls),
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost_usd=usage.cost_usd,
    )


def model_rows(events: Sequence[Event]) -> list[ModelRow]:
    """One row per model and task, in order of appearance. Studies beside the main one are counted in.

    A proposal belongs to the last call before it: proposals are made one at a time.
    """
    tallies: dict[tuple[str, str], _Tally] = {}
    proposed: set[str] = set()
    accepted: set[str] = set()
    asked: _Tally | None = None
    for event in events:
        data = event.data
        if event.type == CALLED:
            asked = _called(tallies, data)
        elif event.type == "trial.proposed":
            if data["probability"] > 0.0:  # a model could have proposed it
                proposed.add(event.id)
            if data["source"] == _AGENT and asked is not None:
                asked.usable += 1
                asked.trials.add(event.id)
            asked = None
        elif event.type == "decision.made" and data["accepted"]:
            accepted.add(event.id)
    for opinion, measured in opinions(events):
        tally = tallies.setdefault((opinion.model, EVALUATE), _Tally())
        tally.checked += 1
        tally.agreed += opinion.lasts == (measured < opinion.beat)
    return [_row(model, task, tally, proposed, accepted) for (model, task), tally in tallies.items()]


def opinions(events: Iterable[Event]) -> list[tuple[Opinion, float]]:
    """What models said of near ties, each with the mean error of the trainings that followed; those alone were fresh.

    An opinion of which every further training failed is left out: nothing has tested it.
    """
    said: dict[str, Opinion] = {}
    measured: dict[str, list[float]] = {}
    for event in events:
        if event.type == "repeat.wanted" and event.data.get("opinion"):  # absent in runs of earlier versions
            said[event.id] = Opinion(**event.data["opinion"])
        elif event.type == "trial.finished" and "-r" in (name := event.id.rpartition("/")[2]):
            study = event.id.removesuffix(name)
            measured.setdefault(study + name.partition("-r")[0], []).append(event.data["value"])
    return [(opinion, fmean(measured[name])) for name, opinion in said.items() if name in measured]


def _called(tallies: dict[tuple[str, str], _Tally], data: dict[str, Any]) -> _Tally | None:
    """Count a call for every model that was tried; the tally of a proposal that somebody answered."""
    for attempt in data["attempts"]:
        tally = tallies.setdefault((attempt["model"], data["task"]), _Tally())
        tally.calls += 1
        tally.reason = attempt.get("message") or attempt.get("error") or tally.reason
        tally.usage = tally.usage + usage_from(attempt["usage"])
    if data["error"] is not None:
        return None
    tally = tallies.setdefault((data["model"], data["task"]), _Tally())
    tally.answered += 1
    if data["task"] == EVALUATE:
        tally.usable += 1
    return tally if data["task"] == PROPOSE else None


def _row(model: str, task: str, tally: _Tally, proposed: set[str], accepted: set[str]) -> ModelRow:
    proposes = task == PROPOSE
    return ModelRow(
        model=model,
        task=task,
        calls=tally.calls,
        answered=tally.answered,
        usable=tally.usable,
        share=len(tally.trials) / len(proposed) if proposes and proposed else None,
        accepted=len(tally.trials & accepted) if proposes else None,
        checked=tally.checked,
        agreed=tally.agreed,
        reason=tally.reason,
        input_tokens=tally.usage.input_tokens,
        output_tokens=tally.usage.output_tokens,
        cost_usd=tally.usage.cost_usd,
    )
