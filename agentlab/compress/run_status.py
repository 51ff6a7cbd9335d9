"""A run as it is now, read from its folder: what is to do, what was spent, and the front of each base."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from agentlab.compress.config import CompressBudgetConfig
from agentlab.compress.goal import Goal
from agentlab.compress.meter import CompressCost
from agentlab.compress.result import TEXTS, charges
from agentlab.compress.verdict import rows_of
from agentlab.runs.document import AnswerDocument, Block, Heading, Plain, Text, figure_or_dash, mebibytes, number, table
from agentlab.runs.events import Event
from agentlab.runs.journal import read_events
from agentlab.search.types import Trial
from agentlab.study.state import TrialState, rebuild


class FrontRow(Plain):
    """A recipe on the front."""

    id: str
    recipe: str
    source: str
    size: int
    share: float
    kl: float
    speed: float


class BaseNow(Plain):
    """A base: how many recipes were measured, what lies on the front, and the list of what is to do."""

    name: str
    measured: int
    failed: int
    front: list[FrontRow]
    todo: list[str]


class Watched(AnswerDocument):
    """The answer of `compress watch`. `limits` are what `spent` may come to; `stage` is the last that was charged."""

    run: str
    status: str
    stage: str
    spent: dict[str, float]
    limits: dict[str, float]
    bases: list[BaseNow]

    def blocks(self) -> list[Block]:
        limits = {unit: f" of {limit:g}" for unit, limit in self.limits.items()}
        parts = [f"{amount:.3g}{limits.get(unit, '')} {unit}" for unit, amount in self.spent.items()]
        stage = f", {self.stage}" if self.stage else ""
        blocks: list[Block] = [Text(f"{self.run}: {self.status}{stage}; {', '.join(parts)}")]
        for base in self.bases:
            if len(self.bases) > 1:
                blocks.append(Heading(base.name))
            blocks += [Text(line) for line in base.todo]
            columns: dict[str, Callable[[FrontRow], str | float | None]] = {
                "": lambda row: row.id,
                "recipe": lambda row: row.recipe,
                "proposed by": lambda row: row.source,
                "MiB": lambda row: mebibytes(row.size),
                "of bfloat16": lambda row: figure_or_dash(row.share, ".0%"),
                "KL": lambda row: number(row.kl),
                "speed": lambda row: f"{row.speed:.2f}x",
            }
            failed = f", {base.failed} failed" if base.failed else ""
            blocks.append(table(base.front, columns, f"Pareto front of {base.measured} measured recipes{failed}"))
        return blocks


def read_progress(path: Path, status: str, budget: CompressBudgetConfig) -> Watched:
    """A run as it is now.

    Raises:
        RunUnreadableError: its events are damaged.
    """
    events = read_events(path / "events.jsonl")
    costs = charges(events)
    names = list(dict.fromkeys(event.id for event in events if event.type == TEXTS)) or [""]
    return Watched(
        run=path.name,
        status=status,
        stage=costs[-1][1] if costs else "",
        spent=sum((cost for _, _, cost in costs), CompressCost()).units,
        limits=dict(budget.limits),
        bases=[_base(path, name, _events_of(name, events)) for name in names],
    )


def trials_of(events: Sequence[Event], name: str) -> list[Trial]:
    """The trials of a search; `name` is that of its base in a run of several."""
    return [trial.as_trial() for trial in rebuild(_events_of(name, events)).trials]


def _events_of(name: str, events: Sequence[Event]) -> list[Event]:
    """The events of a base or an arm, without its name in their ids; all of them where it has no name."""
    own_events = [event for event in events if not name or event.id.startswith(f"{name}/")]
    return [replace(event, id=event.id.removeprefix(f"{name}/")) for event in own_events]


def _base(path: Path, name: str, base_events: Sequence[Event]) -> BaseNow:
    arms = dict.fromkeys(event.id.rpartition("/")[0] for event in base_events if event.type == "trial.proposed")
    trials_by_arm: dict[str, Sequence[TrialState]] = {}
    for arm in arms:
        trials_by_arm[arm or "search"] = rebuild(_events_of(arm, base_events)).trials
    rows = rows_of(trials_by_arm, Goal("kl"), {})
    best = [FrontRow.model_validate(row, from_attributes=True) for row in rows if row.front]
    file = path / (f"todo-{name}.md" if name else "todo.md")
    return BaseNow(
        name=name,
        measured=sum(not row.failed for row in rows),
        failed=sum(bool(row.failed) for row in rows),
        front=sorted(best, key=lambda row: row.size),
        todo=file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else [],
    )
