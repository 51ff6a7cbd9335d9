"""One run with all its texts: on the screen, and as a file that needs nothing beside it."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from pydantic import Field

from agentlab.errors import RunUnreadableError, UsageError
from agentlab.pipeline.branches.digest import config_of, inputs_of
from agentlab.pipeline.branches.trace import TracedCall, TracedStep, number_of, trace
from agentlab.pipeline.store import Store
from agentlab.pipeline.text_store import RunTexts
from agentlab.runs.document import AnswerDocument, Block, Code, Heading, Table, Text, table
from agentlab.runs.redact import Redactor
from agentlab.runs.report import html, markdown
from agentlab.runs.store import RunRecord

Format = Literal["json", "md", "html"]

SCHEMA = 1
_LOST = "(text missing)"


class ExportedRun(AnswerDocument):
    """A run as text, or the file that it was written to; the other one is None."""

    form: str
    text: str | None
    path: str | None

    def blocks(self) -> list[Block]:
        return [Code(self.text if self.text is not None else self.path or "")]


class CallShown(AnswerDocument):
    """A question of a stage. `text` is None when it is lost."""

    id: str
    source: str
    model: str
    text: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float | None

    def blocks(self) -> list[Block]:
        return [Code(_LOST if self.text is None else self.text)]


class StepShown(AnswerDocument):
    """A step with its calls. `output` is None when it handed on nothing, or when it is lost."""

    id: str
    status: str
    seconds: float | None
    output: str | None
    why: dict[str, Any]
    calls: list[CallShown]

    def blocks(self) -> list[Block]:
        """What it took, its candidates when there were several, and what it handed on."""
        blocks: list[Block] = [Heading(self.id if self.status == "done" else f"{self.id} ({self.status})")]
        columns: dict[str, Callable[[CallShown], str | float | None]] = {
            "call": lambda c: c.id,
            "model": lambda c: c.model,
            "from": lambda c: c.source,
            "read": lambda c: c.prompt_tokens,
            "written": lambda c: c.completion_tokens,
            "seconds": lambda c: c.seconds,
        }
        if self.calls:
            blocks.append(table(self.calls, columns))
        if self.why:
            blocks.append(Code(json.dumps(self.why, ensure_ascii=False)))
        for call in self.calls:
            if len(self.calls) > 1 or call.text != self.output:
                blocks += [Text(f"{call.id}:"), *call.blocks()]
        if self.status in ("done", "default"):
            blocks.append(Code(_LOST if self.output is None else self.output))
        return blocks


class ShowView(AnswerDocument):
    """The answer of `pipeline history show`. `inputs` are by the name of the item; the only one has an empty name."""

    id: str
    status: str
    created: str
    parent: str | None
    seconds: float
    path: str
    error: str | None
    config: dict[str, Any]
    inputs: dict[str, str]
    steps: list[StepShown]
    left_out: int = Field(0, description="Number of steps not shown; their inputs are not shown either.")

    def blocks(self) -> list[Block]:
        facts = [
            ("status", self.status),
            ("created", self.created),
            ("time", f"{self.seconds:.1f} s"),
            ("parent", self.parent or "–"),
            ("folder", self.path),
        ]
        blocks: list[Block] = [Table(("", ""), [*facts, ("error", self.error)] if self.error else facts)]
        for item, text in self.inputs.items():
            blocks += [Heading(f"Input {item}".strip()), Code(text)]
        for step in self.steps:
            blocks += step.blocks()
        if self.left_out:
            command = f"agentlab pipeline history export {self.id}"
            blocks.append(Text(f"{self.left_out} more steps are in the full export: {command}"))
        return blocks


def show(record: RunRecord, store: Store, most_steps: int | None = 100) -> ShowView:
    """A run with its texts; of a long batch the first `most_steps` steps and inputs, None for all of them.

    Raises:
        RunUnreadableError: its events are damaged or absent.
    """
    manifest, config = record.manifest, config_of(record)
    run_trace, inputs = trace(record.events()), inputs_of(record, config)
    steps, calls = list(run_trace.steps.values())[:most_steps], run_trace.calls_by_step()
    texts = RunTexts(record.path, store)
    return ShowView(
        id=record.id,
        status=record.status,
        created=manifest.created,
        parent=manifest.parent,
        seconds=record.seconds,
        path=str(record.path),
        error=f"{manifest.error.kind}: {manifest.error.message}" if manifest.error else None,
        config=config,
        inputs=dict(list(inputs.items())[:most_steps]),
        steps=[_step(step, calls.get(step.id, []), texts) for step in steps],
        left_out=len(run_trace.steps) - len(steps),
    )


def export(record: RunRecord, store: Store, form: str, redactor: Redactor) -> str:
    """A whole run as text, its secrets masked: `json` for programs, `md` and `html` for readers.

    Raises:
        UsageError: there is no such form.
        RunUnreadableError: its events are damaged or absent.
    """
    if form not in get_args(Format):
        raise UsageError(f"Unknown export format: {form!r}.", hint=f"Choose one of: {', '.join(get_args(Format))}.")
    view = show(record, store, None)
    if form == "json":
        data = redactor.mask_tree({"schema": SCHEMA, **view.model_dump(mode="json")})
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    blocks = [*view.blocks(), Heading("Configuration"), Code(json.dumps(view.config, indent=2, ensure_ascii=False))]
    masked_blocks = redactor.scrub_blocks(blocks)
    return markdown(view.id, masked_blocks) if form == "md" else html(view.id, masked_blocks, _no_figure)


def _no_figure(name: str) -> str:
    raise RunUnreadableError(f"An exported run does not contain the figure {name}.")


def _step(step: TracedStep, calls: Sequence[TracedCall], texts: RunTexts) -> StepShown:
    return StepShown(
        id=step.id,
        status=step.status,
        seconds=step.seconds,
        output=_writable_text(texts.text(step.sha)) if step.sha else None,
        why=dict(step.why),
        calls=[_call(call, texts) for call in calls],
    )


def _call(call: TracedCall, texts: RunTexts) -> CallShown:
    durations = [number_of(call.answer.get(name)) for name in ("prefill_seconds", "decode_seconds")]
    known_durations = [seconds for seconds in durations if seconds is not None]
    return CallShown(
        id=call.id,
        source=call.source,
        model=str(call.answer.get("model", "")),
        text=_writable_text(texts.text(call.sha)),
        prompt_tokens=_tokens(call, "prompt_tokens"),
        completion_tokens=_tokens(call, "completion_tokens"),
        seconds=sum(known_durations) if known_durations else None,
    )


def _writable_text(text: str | None) -> str | None:
    """The text as a file may hold it: half a character becomes a question mark."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def _tokens(call: TracedCall, name: str) -> int | None:
    value = number_of(call.answer.get(name))
    return None if value is None else int(value)
