"""Two runs side by side: what they were told differently, and which stages came to another text."""

import difflib
from collections.abc import Mapping
from typing import Literal

from agentlab.pipeline.branches.digest import changes, config_of, shorten_value
from agentlab.pipeline.branches.trace import TracedStep, trace
from agentlab.pipeline.store import Store
from agentlab.pipeline.text_store import RunTexts
from agentlab.runs.compare import ConfigDifference
from agentlab.runs.document import AnswerDocument, Block, Code, Heading, Table, Text
from agentlab.runs.store import RunRecord

_MOST_TEXTS = 50  # stages whose texts are compared line by line
_MOST_LINES, _MOST_WIDTH = 1_000, 2_000  # of each text, in lines and characters a line
_MOST_SHOWN = 200  # lines of a comparison

State = Literal["same", "changed", "only in first", "only in second"]


class StageDifference(AnswerDocument):
    """One step in both runs. `lines` is a unified diff; empty when nothing differs or a text is lost."""

    step: str
    state: State
    first: str | None
    second: str | None
    lines: list[str]
    note: str = ""


class DiffView(AnswerDocument):
    """The answer of `pipeline diff`."""

    first: str
    second: str
    config: list[ConfigDifference]
    stages: list[StageDifference]

    def blocks(self) -> list[Block]:
        """The configuration first: it is why texts differ."""
        keys = [(change.key, shorten_value(change.first), shorten_value(change.second)) for change in self.config]
        states = [(stage.step, stage.state, stage.note) for stage in self.stages]
        blocks: list[Block] = [
            Heading("Configuration"),
            Table(("key", self.first, self.second), keys) if keys else Text("Both runs have the same configuration."),
            Heading("Stages"),
            Table(("stage", "output", ""), states) if states else Text("Neither run has completed a stage."),
        ]
        for stage in self.stages:
            if stage.lines:
                blocks += [Heading(stage.step), Code("\n".join(stage.lines))]
        return blocks


def diff(first: RunRecord, second: RunRecord, store: Store) -> DiffView:
    """Compare what two runs were told and what their stages handed on.

    Raises:
        RunUnreadableError: the events of one of them are damaged or absent.
    """
    ours, theirs = trace(first.events()).steps, trace(second.events()).steps
    stages: list[StageDifference] = []
    run_texts, compared = (RunTexts(first.path, store), RunTexts(second.path, store)), 0
    for name in dict.fromkeys((*ours, *theirs)):
        stage = _stage(name, ours, theirs)
        if stage.state == "changed" and compared < _MOST_TEXTS:
            compared += 1
            stage = _with_lines(stage, run_texts, (first.id, second.id))
        stages.append(stage)
    config = changes(config_of(first), config_of(second))
    return DiffView(first=first.id, second=second.id, config=config, stages=stages)


def _stage(name: str, ours: Mapping[str, TracedStep], theirs: Mapping[str, TracedStep]) -> StageDifference:
    a, b = ours.get(name), theirs.get(name)
    state: State
    if a and b:
        state = "same" if (a.sha, a.status) == (b.sha, b.status) else "changed"
    else:
        state = "only in first" if a else "only in second"
    note = f"{a.status} → {b.status}" if a and b and a.status != b.status else ""
    return StageDifference(
        step=name, state=state, first=a.sha if a else None, second=b.sha if b else None, lines=[], note=note
    )


def _with_lines(stage: StageDifference, runs: tuple[RunTexts, RunTexts], names: tuple[str, str]) -> StageDifference:
    shas = (stage.first, stage.second)
    texts = [run.text(sha) if sha else "" for run, sha in zip(runs, shas, strict=True)]
    if texts[0] is None or texts[1] is None:
        runs_without_text = " and ".join(name for name, text in zip(names, texts, strict=True) if text is None)
        notes = filter(None, (stage.note, f"text missing in {runs_without_text}"))
        return stage.model_copy(update={"note": "; ".join(notes)})
    return stage.model_copy(update={"lines": unified_diff(texts[0], texts[1], names)})


def unified_diff(first: str, second: str, names: tuple[str, str]) -> list[str]:
    """A unified diff of two texts, of bounded size: of the first 1,000 lines, at most 200 of the comparison. Pure."""
    lines = list(difflib.unified_diff(_lines(first), _lines(second), *names, n=2, lineterm=""))
    left_out = len(lines) - _MOST_SHOWN
    return [*lines[:_MOST_SHOWN], f"… and {left_out} more lines"] if left_out > 0 else lines


def _lines(text: str) -> list[str]:
    lines = text.split("\n", _MOST_LINES)
    return [line if len(line) <= _MOST_WIDTH else f"{line[:_MOST_WIDTH]}…" for line in lines[:_MOST_LINES]]
