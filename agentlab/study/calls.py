"""What language models did in a run, told from its events: who was asked, what was usable, what won, what it cost."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from agentlab.llm.recorder import CALLED, usage_from
from agentlab.llm.types import Usage
from agentlab.runs.document import AnswerDocument, Block, Table, Text, dollars, figure_or_dash, silence, table
from agentlab.runs.events import Event
from agentlab.study.events import Decision, Opinion, Proposed, Repeat, read, results
from agentlab.study.terms import StudyTerms

_AGENT = "llm"  # source of a trial that a model has proposed; `llm->gp` is a stand-in


class Planner(AnswerDocument):
    """Calls to language models of the whole run."""

    calls: int
    answered: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None


class ModelRow(AnswerDocument):
    """What one language model was asked in one role, what came of it, and what it cost. None is unknown, never zero.

    `usable` answers became a trial (proposing) or an opinion on a near tie; `accepted` of those trials were
    improvements. Of `checked` opinions, which further measurements have tested, `agreed` said what these showed.
    `reason` is its last failure's.
    """

    model: str
    task: str
    calls: int
    answered: int
    usable: int
    share: float | None  # of the trials that it could have proposed
    accepted: int | None
    checked: int = 0
    agreed: int = 0
    reason: str = ""
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None


@dataclass
class _CallTally:
    calls: int = 0
    answered: int = 0
    usable: int = 0
    trials: set[str] = field(default_factory=set)  # ids of those that its proposals became
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


def model_rows(events: Sequence[Event], terms: StudyTerms) -> list[ModelRow]:
    """One row per model and task, in order of appearance. Studies beside the main one are counted in.

    A proposal belongs to the last call before it: proposals are made one at a time.
    """
    tallies: dict[tuple[str, str], _CallTally] = {}
    proposed: set[str] = set()
    accepted: set[str] = set()
    proposer_tally: _CallTally | None = None
    for event in events:
        if event.type == CALLED:
            proposer_tally = _count_call(tallies, event.data, terms)
        match read(event):
            case Proposed() as proposal:
                if proposal.probability > 0.0:  # a model could have proposed it
                    proposed.add(event.id)
                if proposal.source == _AGENT and proposer_tally is not None:
                    proposer_tally.usable += 1
                    proposer_tally.trials.add(event.id)
                proposer_tally = None
            case Decision(accepted=True):
                accepted.add(event.id)
    for opinion, measured in opinions(events):
        tally = tallies.setdefault((opinion.model, terms.evaluate), _CallTally())
        tally.checked += 1
        tally.agreed += opinion.lasts == (measured < opinion.beat)
    return [_row(model, task, tally, proposed, accepted, terms) for (model, task), tally in tallies.items()]


def opinions(events: Iterable[Event]) -> list[tuple[Opinion, float]]:
    """What models said of near ties, each with the mean of the measurements that followed; those alone were fresh.

    An opinion of which every further measurement failed is left out: nothing has tested it.
    """
    opinions_by_name: dict[str, Opinion] = {}
    measured: dict[str, list[float]] = {}
    for event in events:
        match read(event):
            case Repeat(opinion=Opinion() as opinion):
                opinions_by_name[event.id] = opinion
        for name, result in results(event).items():
            if result.value is not None and "-r" in name.rpartition("/")[2]:
                measured.setdefault(name.rpartition("-r")[0], []).append(result.value)
    return [(opinion, fmean(measured[name])) for name, opinion in opinions_by_name.items() if name in measured]


def _count_call(
    tallies: dict[tuple[str, str], _CallTally], data: dict[str, Any], terms: StudyTerms
) -> _CallTally | None:
    """Count a call for every model that was tried; the tally of a proposal that somebody answered."""
    for attempt in data["attempts"]:
        tally = tallies.setdefault((attempt["model"], data["task"]), _CallTally())
        tally.calls += 1
        tally.reason = attempt.get("message") or attempt.get("error") or tally.reason
        tally.usage = tally.usage + usage_from(attempt["usage"])
    if data["error"] is not None:
        return None
    tally = tallies.setdefault((data["model"], data["task"]), _CallTally())
    tally.answered += 1
    if data["task"] == terms.evaluate:
        tally.usable += 1
    return tally if data["task"] == terms.propose else None


def _row(
    model: str, task: str, tally: _CallTally, proposed: set[str], accepted: set[str], terms: StudyTerms
) -> ModelRow:
    proposes = task == terms.propose
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


def silent(rows: Sequence[ModelRow]) -> list[str]:
    """A sentence on each model that answered none of its calls, whatever it was asked for."""
    rows_by_model: dict[str, list[ModelRow]] = {}
    for row in rows:
        rows_by_model.setdefault(row.model, []).append(row)
    sentences: list[str] = []
    for model, its_rows in rows_by_model.items():
        calls = sum(row.calls for row in its_rows)
        if calls and not any(row.answered for row in its_rows):
            sentences.append(silence(model, calls, its_rows[-1].reason))
    return sentences


def model_table(rows: Sequence[ModelRow]) -> Table:
    """Each language model: how often it was asked, what was usable, what won, what it cost."""
    columns: dict[str, Callable[[ModelRow], str | int]] = {
        "model": lambda row: row.model,
        "task": lambda row: row.task,
        "calls": lambda row: row.calls,
        "answered": lambda row: f"{row.answered} of {row.calls}",
        "usable": lambda row: f"{row.usable} of {row.calls}",
        "share of trials": lambda row: figure_or_dash(row.share, ".0%"),
        "wins": lambda row: figure_or_dash(row.accepted),
        "input tokens": lambda row: figure_or_dash(row.input_tokens, ",", "unknown"),
        "output tokens": lambda row: figure_or_dash(row.output_tokens, ",", "unknown"),
        "cost": lambda row: dollars(row.cost_usd),
    }
    return table(rows, columns, "Language models. An answer is usable if it led to a trial or to an opinion on one.")


def opinion_notes(rows: Sequence[ModelRow], terms: StudyTerms) -> list[Block]:
    """What language models said of near ties, held against what followed."""
    return [
        Text(
            f"Asked whether the gain in a near tie would hold up, {m.model} agreed with the repeated "
            f"{terms.measurement}s in {m.agreed} of {m.checked} cases. Near ties are {terms.again} "
            "regardless of the model's opinion."
        )
        for m in rows
        if m.checked
    ]
