"""Why a call of a run was put to a model, or was not: what of its question differs from the nearest one before it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, Literal

from agentlab.errors import RunUnreadableError, UnknownNameError
from agentlab.pipeline.branches.digest import shorten_value
from agentlab.pipeline.branches.origins import PastRun, reasons, stages_of
from agentlab.pipeline.branches.trace import FailedCall, TracedCall, stage_of
from agentlab.pipeline.stage_config import Stage
from agentlab.runs.document import AnswerDocument, Block, Code, Heading
from agentlab.runs.store import RunRecord

_MOST_RUNS = 30  # earlier runs that are looked into
_MOST_CALLS = 200  # of a batch
_MESSAGES = "messages"


class FieldChange(AnswerDocument):
    """A field whose values differ; of a message, its role, hash and length. `reasons` say where its text is from."""

    field: str
    first: Any
    second: Any
    reasons: Sequence[str] = ()

    def describe(self) -> str:
        """In one line: `temperature 0.7 → 0.2`, or `message 2 changed: …`."""
        if not self.field.startswith("message "):
            return f"{self.field} {shorten_value(self.first)} → {shorten_value(self.second)}"
        if self.first is None or self.second is None:
            sentence = f"{self.field} was {'added' if self.first is None else 'removed'}"
        else:
            sentence = f"{self.field} changed"
        return f"{sentence}: {' and '.join(self.reasons)}" if self.reasons else sentence


def field_changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[FieldChange]:
    """The fields that differ of two `PipelineQuestion.summary()`; messages are counted from 1. Pure."""
    a, b = _flat(first), _flat(second)
    names = [name for name in dict.fromkeys((*a, *b)) if a.get(name) != b.get(name)]
    return [FieldChange(field=name, first=a.get(name), second=b.get(name)) for name in names]


def _flat(summary: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in summary.items():
        if name == _MESSAGES and isinstance(value, list):
            continue  # last, after the short ones
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            flat[name] = value
    messages = summary.get(_MESSAGES)
    if isinstance(messages, list):
        flat |= {f"message {number}": message for number, message in enumerate(messages, 1)}
    return flat


class CallWhy(AnswerDocument):
    """One call."""

    id: str
    state: Literal["hit", "miss", "failed"]  # hit: no model was asked; miss: one was; failed: none answered
    source: str  # model, cache or parent
    origin: str | None = None  # of a hit, the run in which a model gave the answer; None if it is gone or far back
    compared: str | None = None  # of a miss, the run with the nearest question of the same name; None without one
    changes: Sequence[FieldChange] = ()
    note: str = ""
    failures: Sequence[str] = ()  # attempts that brought nothing

    def lines(self) -> list[str]:
        match self.state:
            case "hit":
                origin_note = "from parent" if self.source == "parent" else "from store"
                run_note = f"answered in {self.origin}" if self.origin else "original run was deleted"
                headline = f"{self.id}: cache hit ({origin_note}); {run_note}"
            case "miss":
                headline = f"{self.id}: cache miss, model called" + (
                    f"; compared with {self.compared}" if self.compared else ""
                )
            case _:
                headline = f"{self.id}: failed"
        details = [*(change.describe() for change in self.changes), *([self.note] if self.note else []), *self.failures]
        return [headline, *(f"  {detail}" for detail in details)]


class StepWhy(AnswerDocument):
    """How a visit of the stage ended, and what its aggregation or condition noted."""

    id: str
    status: str
    why: dict[str, Any]


class WhyView(AnswerDocument):
    """The answer of `pipeline why`."""

    run: str
    stage: str
    steps: list[StepWhy]
    calls: list[CallWhy]
    left_out: int = 0

    def blocks(self) -> list[Block]:
        step_lines = [f"{step.id}: {step.status}" for step in self.steps if step.status != "done"]
        call_lines = chain.from_iterable(call.lines() for call in self.calls)
        left_out_lines = [f"… and {self.left_out} more calls"] if self.left_out else []
        return [Heading(f"{self.stage} of {self.run}"), Code("\n".join([*step_lines, *call_lines, *left_out_lines]))]


def explain_stage(record: RunRecord, stage: str, runs: Sequence[RunRecord]) -> WhyView:
    """Explain the calls of a stage, or of one step such as `draft@2`. `runs` are those of the workspace, oldest first.

    Raises:
        UnknownNameError: the run has no such stage.
        RunUnreadableError: its events are damaged or absent.
    """
    now = PastRun.of(record)
    stage_trace = now.trace.of(stage)
    calls, failed, steps = list(stage_trace.calls.values()), stage_trace.failed, list(stage_trace.steps.values())
    if not (calls or failed or steps):
        known_ids = [*now.trace.steps, *now.trace.calls]
        raise UnknownNameError("stage", stage, list(dict.fromkeys(stage_of(name) for name in known_ids)))
    earlier_runs, stages = list(islice(_earlier(record, runs), _MOST_RUNS)), stages_of(record)
    answered = [_explain_call(call, now, earlier_runs, stages, failed) for call in calls[:_MOST_CALLS]]
    names = dict.fromkeys(failure.id for failure in failed if failure.id not in now.trace.calls)
    unanswered = [
        CallWhy(id=name, state="failed", source="", failures=_failure_lines(name, failed))
        for name in islice(names, _MOST_CALLS)
    ]
    return WhyView(
        run=record.id,
        stage=stage,
        steps=[StepWhy(id=step.id, status=step.status, why=dict(step.why)) for step in steps[:_MOST_CALLS]],
        calls=[*answered, *unanswered],
        left_out=len(calls) + len(names) - len(answered) - len(unanswered),
    )


def _earlier(record: RunRecord, runs: Sequence[RunRecord]) -> Iterator[PastRun]:
    """The parent, then the runs before this one, newest first. What cannot be read is passed over."""
    position = next((index for index, run in enumerate(runs) if run.id == record.id), len(runs))
    before = [run for run in reversed(runs[:position]) if run.manifest.command == record.manifest.command]
    parent = record.manifest.parent
    for run in sorted(before, key=lambda run: run.id != parent):  # stable: the others keep their order
        try:
            yield PastRun.of(run)
        except RunUnreadableError:
            continue


def _explain_call(
    call: TracedCall, now: PastRun, earlier: Sequence[PastRun], stages: dict[str, Stage], failed: Sequence[FailedCall]
) -> CallWhy:
    same_run_id = next((run.record.id for run in earlier if call.key in run.asked), None)
    make_why = partial(CallWhy, id=call.id, source=call.source, failures=_failure_lines(call.id, failed))
    if call.source != "model":
        return make_why(state="hit", origin=same_run_id)
    if same_run_id is not None:
        note = f"{same_run_id} made the same call, {_why_again(now)}"
        return make_why(state="miss", compared=same_run_id, note=note)
    nearest = _nearest(call, now.record.manifest.parent, earlier)
    if nearest is None:
        return make_why(state="miss", note="no earlier run made this call")
    changed = field_changes(nearest.trace.calls[call.id].asked, call.asked)
    reasoned = [_with_reasons(change, call, now, nearest, stages) for change in changed]
    return make_why(state="miss", compared=nearest.record.id, changes=reasoned)


def _why_again(now: PastRun) -> str:
    cache = now.config.get("cache", "use")
    return (
        "but its answer is no longer in the store" if cache == "use" else f"but cache: {cache} does not reuse answers"
    )


def _nearest(call: TracedCall, parent: str | None, earlier_runs: Sequence[PastRun]) -> PastRun | None:
    """The run whose question of this name differs in the fewest fields; the parent's, if it has one."""
    fitting = [run for run in earlier_runs if call.id in run.trace.calls]
    if fitting and fitting[0].record.id == parent:
        return fitting[0]
    return min(fitting, key=lambda run: len(field_changes(run.trace.calls[call.id].asked, call.asked)), default=None)


def _with_reasons(
    change: FieldChange, call: TracedCall, now: PastRun, before: PastRun, stages: dict[str, Stage]
) -> FieldChange:
    message = change.second if isinstance(change.second, dict) else change.first
    if not change.field.startswith("message ") or not isinstance(message, dict):
        return change
    return change.model_copy(update={"reasons": reasons(call.id, str(message.get("role")), now, before, stages)})


def _failure_lines(call: str, failed: Sequence[FailedCall]) -> list[str]:
    return [
        f"{failure.model} failed: {failure.kind}: {failure.message}"
        + (f"; next: {failure.rung}" if failure.rung not in ("", "none") else "")
        for failure in failed
        if failure.id == call
    ]
