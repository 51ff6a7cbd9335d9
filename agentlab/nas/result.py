"""The answer of `agentlab nas`, as data. `tables.py` turns it into what a reader sees."""

from pydantic import Field

from agentlab.runs.document import Block, Document
from agentlab.search.types import Value
from agentlab.stats.control import Control


class TrialRow(Document):
    """One trial. `val_mse` is the mean of its `trainings` that finished; `seconds` those of the first."""

    run_id: str
    source: str
    arm: str
    val_mse: float | None
    trainings: int
    accepted: bool
    reason: str
    judge: str
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


class PublishedRow(Document):
    """What somebody else reported for this series, split and horizon."""

    model: str
    mse: float
    mae: float
    source: str
    note: str


class FinalistRow(Document):
    """A trial of the last round: its validation MSE in the search, and of each training at full budget."""

    run_id: str
    search_val_mse: float
    val_mse: list[float]
    failed: int
    mean: float | None


class Winner(Document):
    """The finalist with the lowest mean validation error. Its errors are means over its `trainings`.

    A spread is the sample standard deviation over them, None of a single one. `unstable` says that they scatter so much
    that one says little about the next. `exported` is the training whose weights lie in `winner/`.
    """

    run_id: str
    source: str
    params: dict[str, Value]
    changes: dict[str, Value]
    trainings: int
    val_mse: float
    val_mse_spread: float | None = None
    unstable: bool = False
    test_mse: float
    test_mae: float
    test_mse_spread: float | None
    test_mae_spread: float | None
    parameters: int
    exported: str


class ChannelRow(Document):
    """The winner's test error in one column: on standardised data, and its root in the units of the file."""

    name: str
    mse: float
    rmse: float


class NoiseRow(Document):
    """Relative deviation of a validation error from seed to seed; `trainings` 0 means that it was not measured."""

    deviation: float
    trainings: int
    note: str


class SourceRow(Document):
    """How one kind of proposal did."""

    source: str
    trials: int
    failed: int
    accepted: int
    best_val_mse: float | None


class ModelRow(Document):
    """What one language model was asked in one role, what came of it, and what it cost. None is unknown, never zero.

    `usable` answers became a trial (proposing) or an opinion on a near tie; `accepted` of those trials were
    improvements. Of `checked` opinions, which further trainings have tested, `agreed` said what these showed. `reason`
    is its last failure's.
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


class Planner(Document):
    """Calls to language models of the whole run."""

    calls: int
    answered: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None


class PairRow(Document):
    """Two studies of one seed: lowest validation MSE with the agent and without."""

    seed: int
    agent: float | None
    control: float | None


class NasResult(Document):
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
    pairs: list[PairRow]
    control: Control | None
    control_note: str

    def blocks(self) -> list[Block]:
        """What the terminal shows: the winner beside the references, and whether the agent helped."""
        from agentlab.nas.tables import summary

        return summary(self)
