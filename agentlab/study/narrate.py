"""What any study says while it runs, and what `--debug` tells of its proposals."""

from collections.abc import Mapping, Sequence
from typing import Any

from agentlab.runs.debug import as_json, indent_lines
from agentlab.runs.document import number
from agentlab.runs.events import Event, Narration
from agentlab.search.types import Proposal, TrialResult
from agentlab.study.events import Branched, Decision, Proposed, Reason, Repeat, read, results
from agentlab.study.state import number_of
from agentlab.study.terms import StudyTerms


def narrate(event: Event, terms: StudyTerms) -> Narration | None:
    """One line for each measurement; calls of language models are told with -v."""
    data, name = event.data, event.id
    if event.type == "study.opened":
        return Narration(line=data["summary"], done=data["done"], total=data["trials"])
    if event.type == "llm.called":
        return Narration(verbose=_call(name, data))
    if event.type == "trial.started":
        return Narration(detail=f"{name}: starting")
    failed = [f"  {key}  failed: {result.error}" for key, result in results(event).items() if result.error]
    if failed:
        return Narration(line="\n".join(failed))
    match read(event):
        case Branched() as outcome:
            proposer = "with the language model" if outcome.agent else "without a language model"
            return Narration(line=f"paired study {outcome.place} of {outcome.of}, {proposer}, seed {outcome.seed}")
        case Reason(reason) if event.type == "trial.retried":
            return Narration(line=f"  {name}  retrying in a new process: {reason}")
        case Reason(reason):
            return Narration(line=f"  search ended early: {reason}")
        case Decision() as outcome:
            line = None if data[terms.value] is None else _decision(name, outcome, data, terms)  # a failure was told
            # a study beside the main one does not move the bar
            return Narration(line=line, done=None if "/" in name else number_of(name) + 1)
        case Proposal() as outcome:
            return Narration(line=f"  {name}  proposal from {outcome.source} rejected")
        case TrialResult() as outcome if "-" in name.rpartition("/")[2]:  # the first is told with the decision
            return Narration(line=f"  {name}  {terms.metric} {number(outcome.value)}  {terms.again}")
        case Repeat() as outcome:
            return Narration(line=f"  {name}  will be {terms.again}: {outcome.reason}")
    return None


def _decision(name: str, decision: Decision, data: Mapping[str, Any], terms: StudyTerms) -> str:
    mark = "*" if decision.accepted else " "
    judge = "" if decision.by == "rule" else f" ({decision.by})"
    return f"{mark} {name}  {terms.metric} {number(data[terms.value])}  {data['source']:<10} {decision.reason}{judge}"


def _call(name: str, data: Mapping[str, Any]) -> str:
    """Which model answered at what length, or why none did; attempts that failed are counted."""
    failed = [attempt for attempt in data["attempts"] if attempt["error"]]
    if data["error"]:
        return f"  {name}: no answer after {len(failed)} failed attempts: {data['error']['message']}"
    usage = data["usage"]
    input_count, output_count = ("?" if usage[key] is None else usage[key] for key in ("input_tokens", "output_tokens"))
    before = f", after {len(failed)} failed attempts: {failed[-1]['message']}" if failed else ""
    return f"  {name}: {data['model']} answered, {input_count} input + {output_count} output tokens{before}"


def is_reviewed(events: Sequence[Event]) -> bool:
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
        match read(event):
            case Proposed() as told:
                self._tried[event.id] = told.params
                return _proposal(event.id, told, self._best.get(study))
            case Decision(accepted=True) if event.id in self._tried:
                self._best[study] = self._tried[event.id]
        return None


def _proposal(name: str, proposal: Proposed, best: Mapping[str, Any] | None) -> str:
    params = proposal.params
    head = f"{name} proposed by {proposal.source}{f': {proposal.note}' if proposal.note else ''}"
    if best is None:
        return indent_lines(head, [f"{name}: {as_json(value)}" for name, value in params.items()])
    names = [name for name in dict.fromkeys([*best, *params]) if best.get(name) != params.get(name)]
    lines = [f"{name}: {_of(best, name)} -> {_of(params, name)}" for name in names]
    return indent_lines(f"{head}; changes to the best so far:", lines or ["none"])


def _of(params: Mapping[str, Any], name: str) -> str:
    return as_json(params[name]) if name in params else "(inactive)"
