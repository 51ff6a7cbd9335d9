"""The answer of `agentlab nas`: data, and what the terminal shows of it."""

import math
from typing import Annotated

from pydantic import Field

from agentlab.runs.document import AnswerDocument, Block, Column, Table, Text, number, with_spread
from agentlab.search.types import Value, meaning
from agentlab.stats.control import Control
from agentlab.study.calls import ModelRow, Planner, silent
from agentlab.study.control import Pair
from agentlab.study.noise import Noise


class TrialRow(AnswerDocument):
    """One trial. `val_mse` is the mean of its `trainings` that finished; `seconds` those of the first."""

    run_id: Annotated[str, Column("trial")]
    source: Annotated[str, Column("source")]
    arm: str
    val_mse: float | None
    trainings: int
    accepted: bool
    reason: str
    judge: str
    parameters: Annotated[int | None, Column("weights", lambda count: f"{count:,}" if count else "–")]
    seconds: Annotated[float | None, Column("seconds", ".1f", "Duration of the trial's first training run.")]
    changes: dict[str, Value]
    note: str
    error: str


class ReferenceRow(AnswerDocument):
    """A simple forecast that the winner has to beat."""

    name: str
    note: str
    val_mse: float
    val_mae: float
    test_mse: float
    test_mae: float


class PublishedRow(AnswerDocument):
    """What somebody else reported for this series, split and horizon."""

    model: Annotated[str, Column("model")]
    mse: Annotated[float, Column("test MSE", ".3f")]
    mae: Annotated[float, Column("test MAE", ".3f")]
    source: Annotated[str, Column("source")]
    note: Annotated[str, Column("note")]


class FinalistRow(AnswerDocument):
    """A trial of the last round: its validation MSE in the search, and of each training at full budget."""

    run_id: Annotated[str, Column("trial")]
    search_val_mse: Annotated[float, Column("validation MSE in the search")]
    val_mse: list[float]
    failed: int
    mean: Annotated[float | None, Column("mean")]


class Winner(AnswerDocument):
    """The finalist with the lowest mean validation error. Its errors are means over its `trainings`.

    A spread is the sample standard deviation over them, None of a single one.
    """

    run_id: str
    source: str
    params: dict[str, Value]
    changes: dict[str, Value]
    trainings: int
    val_mse: float
    val_mse_spread: float | None = None
    unstable: bool = False  # the errors scatter so much that one says little about the next
    test_mse: float
    test_mae: float
    test_mse_spread: float | None
    test_mae_spread: float | None
    parameters: int
    exported: str  # the training whose weights lie in `winner/`


class ChannelRow(AnswerDocument):
    """The winner's test error in one column: on standardised data, and its root in the units of the file."""

    name: Annotated[str, Column("column")]
    mse: Annotated[float, Column("test MSE")]
    rmse: Annotated[float, Column("RMSE in original units")]


class NoiseRow(AnswerDocument):
    """Relative deviation of a validation error from seed to seed; `trainings` 0 means that it was not measured."""

    deviation: float
    trainings: int
    note: str


class SourceRow(AnswerDocument):
    """How one kind of proposal did."""

    source: Annotated[str, Column("source")]
    trials: Annotated[int, Column("trials")]
    failed: Annotated[int, Column("failed")]
    accepted: Annotated[int, Column("accepted")]
    best_val_mse: Annotated[float | None, Column("best validation MSE")]


class NasResult(AnswerDocument):
    """A finished study. `advice` says what speaks against the winner, in sentences; empty if nothing does."""

    series: str
    advice: list[str] = Field(default_factory=list)
    winner: Winner
    references: list[ReferenceRow]
    published: list[PublishedRow]
    test_looks: int
    by_step: list[float]
    by_channel: list[ChannelRow]
    finalists: list[FinalistRow]
    noise: NoiseRow
    trials: list[TrialRow]
    sources: list[SourceRow]
    importances: dict[str, float]
    planner: Planner
    models: list[ModelRow]
    pairs: list[Pair]
    control: Control | None
    control_note: str

    @property
    def simple_error(self) -> float:
        """The lowest test MSE of the simple forecasts."""
        return min(reference.test_mse for reference in self.references)

    def blocks(self) -> list[Block]:
        sentences = [headline(self), *advice(self)]
        return [*map(Text, sentences), comparison(self), Text(self.control_note)]


def headline(result: NasResult) -> str:
    """One sentence."""
    w, best = result.winner, min(result.references, key=lambda r: r.test_mse)
    count = "1 trial" if len(result.trials) == 1 else f"{len(result.trials)} trials"
    shares = [f"{error / best.test_mse - 1:+.1%}" for error in _over_seeds(w) or ()]
    return (
        f"Winner {w.run_id} of {count} ({w.source}, {meaning(w.source)}): test MSE "
        f"{with_spread(w.test_mse, w.test_mse_spread)}{f' over {w.trainings} seeds' if w.trainings > 1 else ''}, "
        f"{_ratio_words(w.test_mse / best.test_mse)} the best baseline ({best.name}, "
        f"{number(best.test_mse)}{f'; over seeds {shares[0]} to {shares[1]}' if shares else ''}), "
        f"{w.parameters:,} weights."
    )


def advice(result: NasResult) -> list[str]:
    """What speaks against the winner (a simple forecast that is better, trainings that scatter), and silent models."""
    w, simple = result.winner, result.simple_error
    sentences: list[str] = []
    if simple < w.test_mse:
        interval = _over_seeds(w)
        if interval is None:
            verdict = (
                "The baseline has the lower test error, but one training run cannot show whether the difference is real"
            )
        elif interval[0] <= simple:
            verdict = "The difference from the baseline is not significant"
        else:
            verdict = "The baseline is better"
        sentences.append(f"{verdict}; use the baseline, or start a new search with more training or trials.")
    if w.unstable:
        sentences.append(
            f"The winner is unstable: over its {w.trainings} training runs in the last round, the validation "
            f"MSE of {number(w.val_mse)} has a standard deviation of {number(w.val_mse_spread)}, so "
            "another training run may be much worse. The training run with the lowest validation error is kept."
        )
    return [*sentences, *silent(result.models)]


def comparison(result: NasResult) -> Table:
    """Winner, references and published figures, best test error first. Errors are on standardised data."""
    w = result.winner
    rows: list[tuple[float, tuple[str, str, str, str]]] = [
        (r.test_mse, (r.name, number(r.val_mse), number(r.test_mse), number(r.test_mae))) for r in result.references
    ]
    rows += [(p.mse, (f"{p.model}, published", "–", number(p.mse, 3), number(p.mae))) for p in result.published]
    mine = with_spread(w.val_mse, w.val_mse_spread), with_spread(w.test_mse, w.test_mse_spread), number(w.test_mae)
    rows.append((w.test_mse, (f"winner {w.run_id}", *mine)))
    rows.sort(key=lambda row: row[0])
    return Table(
        ("forecast", "validation MSE", "test MSE", "test MAE"),
        [row for _, row in rows],
        "The winner, the baselines and published figures, lowest test error first",
    )


def _over_seeds(winner: Winner) -> tuple[float, float] | None:
    """The 95 % interval of the winner's test MSE over its trainings, by Student's t of the logarithms."""
    if not winner.test_mse_spread or winner.trainings < 2:
        return None
    noise = Noise(winner.test_mse_spread / winner.test_mse, winner.trainings, winner.trainings - 1)
    width = noise.limit(winner.trainings, 1, Noise(0.0))
    return winner.test_mse * math.exp(-width), winner.test_mse * math.exp(width)


def _ratio_words(ratio: float) -> str:
    if 0.995 < ratio < 1.005:
        return "level with"
    if ratio < 1:
        return f"{1 - ratio:.0%} below"
    return f"{ratio - 1:.0%} above" if ratio < 2 else f"{ratio:.1f} times"
