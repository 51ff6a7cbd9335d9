"""The answer of `agentlab nas`."""

from collections.abc import Sequence
from typing import Any

from agentlab.nas.state import StudyState, changes
from agentlab.runs.document import Block, Document, Table, Text, number
from agentlab.search.types import Value
from agentlab.stats.control import Control


class TrialRow(Document):
    """One trial, as the report lists it."""

    run_id: str
    source: str
    arm: str
    val_mse: float | None
    accepted: bool
    parameters: int | None
    seconds: float | None
    changes: dict[str, Value]
    note: str
    error: str


class ReferenceRow(Document):
    """A simple forecast that the winner has to beat."""

    name: str
    note: str
    val_mse: float
    val_mae: float
    test_mse: float
    test_mae: float


class Winner(Document):
    """The trial accepted last, and its one test score: no other is better by more than the noise and no larger."""

    run_id: str
    source: str
    params: dict[str, Value]
    changes: dict[str, Value]
    val_mse: float
    test_mse: float
    test_mae: float
    parameters: int


class SourceRow(Document):
    """How one kind of proposal did."""

    source: str
    trials: int
    failed: int
    accepted: int
    best_val_mse: float | None


class Planner(Document):
    """What the language model was asked and what it cost. None is unknown, never zero."""

    calls: int
    answered: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None


class NasResult(Document):
    """A finished study."""

    series: str
    winner: Winner
    references: list[ReferenceRow]
    trials: list[TrialRow]
    sources: list[SourceRow]
    planner: Planner
    control: Control | None
    control_note: str

    def blocks(self) -> list[Block]:
        """What the terminal shows: the winner beside the references, and whether the agent helped."""
        return [Text(self.headline()), *self.advice(), self.comparison(), Text(self.control_note)]

    def headline(self) -> str:
        """One sentence."""
        w, best = self.winner, min(self.references, key=lambda r: r.test_mse)
        count = "1 trial" if len(self.trials) == 1 else f"{len(self.trials)} trials"
        return (
            f"Winner {w.run_id} of {count} ({w.source}): test MSE {number(w.test_mse)}, "
            f"{_beside(w.test_mse / best.test_mse)} the best reference ({best.name}, {number(best.test_mse)}), "
            f"{w.parameters:,} weights."
        )

    def advice(self) -> list[Block]:
        """What to do when a simple forecast is better than the winner."""
        if self.winner.test_mse <= min(line.test_mse for line in self.references):
            return []
        return [Text("The simple forecast is better. Train longer (--set training.epochs=10) or search longer.")]

    def comparison(self) -> Table:
        """Winner and references, best test error first. Errors are on standardised data."""
        rows = [(r.name, r.val_mse, r.test_mse, r.test_mae) for r in self.references]
        rows.append((f"winner {self.winner.run_id}", self.winner.val_mse, self.winner.test_mse, self.winner.test_mae))
        rows.sort(key=lambda row: row[2])
        return Table(
            ("forecast", "validation MSE", "test MSE", "test MAE"),
            [(name, number(val), number(mse), number(mae)) for name, val, mse, mae in rows],
        )

    def configuration(self) -> Table:
        """The winner's searched keys; a star marks what differs from trial 0."""
        w = self.winner
        return Table(
            ("key", "value", "changed"), [(k, str(v), "*" if k in w.changes else "") for k, v in w.params.items()]
        )

    def trial_table(self) -> Table:
        """All trials in their order. Keys are cut to their last part, which the configuration table has in full."""
        rows = [
            (
                t.run_id,
                t.source,
                number(t.val_mse),
                "accepted" if t.accepted else ("failed" if t.error else ""),
                f"{t.parameters:,}" if t.parameters else "–",
                f"{t.seconds:.1f}" if t.seconds is not None else "–",
                ", ".join(f"{k.rpartition('.')[2]}={v}" for k, v in t.changes.items()) or "the default",
                t.error or t.note,
            )
            for t in self.trials
        ]
        columns = ("trial", "source", "validation MSE", "verdict", "weights", "seconds", "differs from trial 0", "note")
        return Table(columns, rows)

    def source_table(self) -> Table:
        """How each kind of proposal did."""
        rows = [(s.source, str(s.trials), str(s.failed), str(s.accepted), number(s.best_val_mse)) for s in self.sources]
        return Table(
            ("source", "trials", "failed", "accepted", "best validation MSE"), rows, "Trials by where they came from"
        )

    def planner_table(self) -> Table:
        """Calls, tokens and cost of the language model."""
        p = self.planner
        cost = "unknown" if p.cost_usd is None else f"{p.cost_usd:.4f} USD"
        return Table(
            ("calls", "answered", "tokens in", "tokens out", "cost"),
            [(str(p.calls), str(p.answered), _known(p.input_tokens), _known(p.output_tokens), cost)],
            "The language model",
        )


def _beside(ratio: float) -> str:
    """A ratio of errors in words."""
    if ratio < 1:
        return f"{1 - ratio:.0%} below"
    return f"{ratio - 1:.0%} above" if ratio < 2 else f"{ratio:.1f} times"


def _known(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def trial_rows(state: StudyState) -> list[TrialRow]:
    """The trials of a study, as the report lists them."""
    default = state.trials[0].proposal.params if state.trials else {}
    rows = []
    for trial in state.trials:
        metrics: Any = trial.result.metrics if trial.result else {}
        rows.append(
            TrialRow(
                run_id=trial.id,
                source=trial.proposal.source,
                arm=trial.arm,
                val_mse=trial.value,
                accepted=bool(trial.decision and trial.decision.accepted),
                parameters=metrics.get("parameters"),
                seconds=metrics.get("seconds"),
                changes=changes(trial.proposal.params, default),
                note=trial.proposal.note,
                error=trial.result.error if trial.result else "",
            )
        )
    return rows


def source_rows(rows: Sequence[TrialRow]) -> list[SourceRow]:
    """The trials grouped by where they came from, in order of appearance."""
    return [
        SourceRow(
            source=source,
            trials=len(group),
            failed=sum(1 for t in group if t.error),
            accepted=sum(t.accepted for t in group),
            best_val_mse=min((t.val_mse for t in group if t.val_mse is not None), default=None),
        )
        for source in dict.fromkeys(t.source for t in rows)
        if (group := [t for t in rows if t.source == source])
    ]
