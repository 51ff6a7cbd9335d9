"""What `agentlab nas` can be told: the series, the Informer, its training, and the search over them.

The dotted names of these fields (`model.d_model`, `training.optimizer_params.lr`) are the names a search space uses.
"""

import codecs
from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StrictFloat, StrictInt, ValidationError, field_validator, model_validator

from agentlab.config.base import StrictModel, budget_field, machine_field, preset_field
from agentlab.config.overrides import replace_at
from agentlab.config.validation_messages import complaint
from agentlab.errors import ConfigError
from agentlab.llm.config import LLMConfig
from agentlab.runs.comparability import Basis
from agentlab.search.arms import ArmName
from agentlab.search.constraints import Constraint
from agentlab.search.space import SpaceConfig
from agentlab.search.types import Params, Value

if TYPE_CHECKING:
    from agentlab.study.state import StudyCandidate

OptimizerName = Literal["Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "SGD"]
CriterionName = Literal["MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss"]
WITH_MOMENTUM = ("RMSprop", "SGD")

# The data keys a trial may change: they alter what the model sees, never which rows it is judged on.
TRIAL_DATA_KEYS = ("data.batch_size", "data.input_length", "data.label_share")

Share = Annotated[StrictFloat, Field(gt=0, lt=1)]
Rows = Annotated[StrictInt, Field(ge=1)]


class SplitConfig(StrictModel):
    """Consecutive parts of the series, oldest first, as three row counts or three shares of all rows."""

    train: Rows | Share = Field(0.6, description="Training split: number of rows (an integer) or fraction (below 1).")
    val: Rows | Share = Field(0.2, description="Validation split, which ranks the trials: rows or fraction.")
    test: Rows | Share = Field(0.2, description="Test split, scored once at the end: rows or fraction.")

    @model_validator(mode="after")
    def _one_kind(self) -> "SplitConfig":
        parts = (self.train, self.val, self.test)
        if len({type(part) for part in parts}) > 1:
            raise ValueError("use three row counts or three fractions, not a mix of both")
        if isinstance(self.train, float) and sum(parts) > 1 + 1e-9:
            raise ValueError(f"the fractions add up to {sum(parts):.4g}; the sum must not exceed 1")
        return self


class DataConfig(StrictModel):
    """The series to forecast, how it is split, and how the model sees it."""

    path: str | None = Field(
        None,
        description="CSV or CSV.GZ file with one row per time step; null uses the embedded New York weather of 2013.",
    )
    separator: Literal[",", ";", "\t", "|"] = Field(",", description="Field separator of the file.")
    decimal: Literal[".", ","] = Field(
        ".", description="Decimal mark. With a comma, dots may separate thousands: 1.234,5."
    )
    encoding: str = Field(
        "utf-8", max_length=40, description="Text encoding of the file, such as windows-1252 or latin-1."
    )
    date_column: str = Field("date", min_length=1, description="Column with the timestamps.")
    date_format: str | None = Field(
        None,
        description="strptime format of the dates, such as %d/%m/%Y %H:%M; null expects ISO 8601 (2013-01-31 06:00).",
    )
    features: Literal["M", "S", "MS"] = Field(
        "M",
        description="M: all columns forecast all columns; S: the target forecasts itself; MS: all columns "
        "forecast the target.",
    )
    target: str | None = Field(None, description="Target column for S and MS; null uses the last column.")
    columns: tuple[str, ...] | None = Field(
        None, min_length=1, max_length=512, description="Columns to use, in this order; null uses all except the date."
    )
    ignore: tuple[str, ...] = Field(
        (),
        max_length=512,
        description="Columns to ignore, such as comments; an empty string stands for a column without a name.",
    )
    frequency: str | None = Field(
        None, description="Time step: 15min, h, 2h, D, W or MS (month start); null infers it from the dates."
    )
    gaps: Literal["error", "ffill", "interpolate"] = Field(
        "error",
        description="Missing rows and cells: raise an error, repeat the last value (ffill), or interpolate "
        "linearly (which looks ahead).",
    )
    split: SplitConfig = Field(SplitConfig(), description="Training, validation and test split.")
    horizon: int = Field(24, ge=1, le=2000, description="Number of steps to forecast.")
    input_length: int = Field(96, ge=2, le=4096, description="Number of steps the encoder sees.")
    label_share: float = Field(
        0.5, ge=0, le=1, description="Share of the input that the decoder sees again before the forecast."
    )
    batch_size: int = Field(32, ge=1, le=4096, description="Windows per training step.")

    @field_validator("encoding")
    @classmethod
    def _is_like_ascii(cls, name: str) -> str:
        """Line ends and separators are looked for as bytes, so they have to be those of ASCII."""
        plain = bytes(range(128))
        try:
            alike = codecs.lookup(name)._is_text_encoding and plain.decode(name) == plain.decode("ascii")
        except (LookupError, ValueError):
            alike = False
        if not alike:
            raise ValueError(f"{name!r} is not a supported encoding; use utf-8, windows-1252 or latin-1")
        return name

    @property
    def label_length(self) -> int:
        """Steps of the input that the decoder starts from."""
        return round(self.label_share * self.input_length)

    @property
    def scored_at_once(self) -> int:
        """Windows in a block of scoring: fewer when they are long, so that it needs no more memory than training."""
        return max(16, min(512, 65_536 // (self.input_length + self.horizon)))


class ModelConfig(StrictModel):
    """The Informer of arXiv 2012.07436, with three options beyond the paper."""

    d_model: int = Field(
        512, ge=2, le=2048, description="Width of every layer; must be even and a multiple of n_heads."
    )
    n_heads: int = Field(8, ge=1, le=64, description="Attention heads.")
    e_layers: int = Field(2, ge=1, le=6, description="Encoder layers.")
    d_layers: int = Field(1, ge=1, le=6, description="Decoder layers.")
    ff_multiplier: int = Field(4, ge=1, le=8, description="Width of the feed-forward layers as a multiple of d_model.")
    attention: Literal["prob", "full"] = Field(
        "prob", description="ProbSparse (as in the paper) or full self-attention."
    )
    factor: int = Field(5, ge=1, le=20, description="ProbSparse factor: queries and sampled keys per ln(length).")
    distil: bool = Field(True, description="Halve the sequence length between encoder layers.")
    mix: bool = Field(True, description="Flatten decoder self-attention heads-first, as in the original code.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout rate.")
    normalize: bool = Field(False, description="Not in the paper: standardise each window and rescale its forecast.")
    shortcut: bool = Field(
        False, description="Not in the paper: add a linear forecast from the window, centred on its last value."
    )
    faithful: bool = Field(
        False,
        description="Follow the published code: reject all options not in the paper, and apply dropout to "
        "attention weights where the code does (slow on a CPU).",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        if self.d_model % 2 or self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} must be even and a multiple of n_heads {self.n_heads}")
        beyond = [name for name in ("normalize", "shortcut") if getattr(self, name)]
        if self.faithful and beyond:
            raise ValueError(
                f"faithful cannot be combined with {' and '.join(beyond)}: set faithful to false, or all the others"
            )
        return self


class OptimizerParams(StrictModel):
    """Arguments of the optimiser."""

    lr: float = Field(1e-4, gt=0, le=1, description="Learning rate of the first epoch.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="Weight decay.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum; SGD and RMSprop only.")


class TrainingConfig(StrictModel):
    """How a trial is trained."""

    optimizer_class: OptimizerName = Field("Adam", description="Optimiser class in torch.optim.")
    optimizer_params: OptimizerParams = Field(OptimizerParams(), description="Arguments of the optimiser.")
    criterion_class: CriterionName = Field("MSELoss", description="Training loss, a class in torch.nn.")
    epochs: int = Field(6, ge=1, le=1000, description="Maximum number of passes over the training windows.")
    patience: int = Field(
        3, ge=1, le=1000, description="Stop after this many consecutive epochs without a lower validation MSE."
    )
    schedule: Literal["halving", "constant"] = Field(
        "halving",
        description="Learning rate schedule: halved after every epoch except the first (as published), or constant.",
    )
    clip_norm: float | None = Field(None, gt=0, description="Maximum gradient norm; null disables clipping.")
    train_fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the training windows to use, evenly spread; a smaller share is faster but less accurate.",
    )

    @model_validator(mode="after")
    def _momentum_is_used(self) -> "TrainingConfig":
        if self.optimizer_params.momentum and self.optimizer_class not in WITH_MOMENTUM:
            raise ValueError(f"{self.optimizer_class} does not take momentum; use {' or '.join(WITH_MOMENTUM)}")
        return self


class TrialConfig(StrictModel):
    """Everything that determines the result of a trial, apart from the series and the seed."""

    data: DataConfig = Field(DataConfig(), description="The series and its windows.")
    model: ModelConfig = Field(ModelConfig(), description="The network.")
    training: TrainingConfig = Field(TrainingConfig(), description="Training settings.")

    @model_validator(mode="after")
    def _enough_to_halve(self) -> "TrialConfig":
        needed = 2**self.model.e_layers if self.model.distil else 2
        if self.data.input_length < needed:
            raise ValueError(
                f"input_length {self.data.input_length} is too short to be halved between "
                f"{self.model.e_layers} encoder layers: use at least {needed}, or set distil to false"
            )
        return self


class EvaluatorConfig(StrictModel):
    """When a trial counts as better than the best so far."""

    repeats: int = Field(
        2,
        ge=0,
        le=20,
        description="Number of times that trial 0, and the first accepted trial of each other family, is "
        "trained again with a different seed to measure the noise.",
    )
    noise: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Relative standard deviation of the validation MSE across seeds; null measures it with `repeats`.",
    )
    family: tuple[str, ...] = Field(
        ("model.normalize", "model.shortcut"),
        max_length=8,
        description="Searched keys on which the noise depends; the noise is measured separately for each "
        "combination of their values.",
    )


class FinalsConfig(StrictModel):
    """The last round: the best trials are trained again at full budget with several seeds each."""

    count: int = Field(
        3, ge=0, le=50, description="Number of trials in the last round; 0 keeps the accepted trial as it is."
    )
    seeds: int = Field(3, ge=1, le=50, description="Trainings per trial, each with a different seed.")
    train_fraction: float = Field(1.0, gt=0, le=1, description="Share of the training windows used in the last round.")
    epochs: int | None = Field(
        None, ge=1, le=1000, description="Maximum epochs in the last round; null keeps the trial's value."
    )

    @property
    def full(self) -> dict[str, Value]:
        """What a training has there instead of what was proposed."""
        epochs = {} if self.epochs is None else {"training.epochs": self.epochs}
        return {"training.train_fraction": self.train_fraction, **epochs}


class SearchConfig(StrictModel):
    """Who proposes trials, and which proposals are refused before they cost a trial."""

    base: ArmName = Field("gp", description="Classical optimiser; auto uses gp, or tpe beyond 100 trials.")
    pick_from: int = Field(
        2,
        ge=2,
        le=8,
        description="Candidates offered to a small language model; fewer candidates make a bad choice less costly.",
    )
    memory_mb: int = Field(
        2048, ge=16, le=1_000_000, description="Reject candidates whose training needs more memory than this (MiB)."
    )
    max_parameters: int = Field(2_000_000, ge=100, description="Reject candidates with more weights than this.")


class NasConfig(StrictModel):
    """One `agentlab nas` run."""

    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the search and of every trial.")
    max_iterations: int = budget_field(
        20,
        ge=1,
        le=100_000,
        description="Total number of trials, including those before a resume; with paired studies, training runs per "
        "study.",
    )
    max_seconds: float | None = budget_field(None, gt=0, description="Total training seconds; null sets no limit.")
    data: DataConfig = Field(DataConfig(), description="The series and its windows.")
    model: ModelConfig = Field(ModelConfig(), description="The network of trial 0.")
    training: TrainingConfig = Field(TrainingConfig(), description="Training settings of trial 0.")
    space: SpaceConfig = Field(
        SpaceConfig({}), description="Dotted key -> range or choices to search; if empty, only trial 0 is trained."
    )
    constraints: tuple[Constraint, ...] = Field((), max_length=64, description="Constraints between searched values.")
    search: SearchConfig = Field(SearchConfig(), description="Proposers and screening.")
    evaluator: EvaluatorConfig = Field(EvaluatorConfig(), description="Rules for accepting a trial.")
    finals: FinalsConfig = Field(FinalsConfig(), description="The last round, which picks the winner.")
    control: Literal["light", "full"] = Field(
        "light",
        description="How to measure the agent's benefit: light assigns trials at random within the run; full also "
        "runs paired studies with and without the agent.",
    )
    control_seeds: int = Field(8, ge=5, le=100, description="Number of pairs of studies with --control full.")
    workers: int = machine_field(
        1, ge=1, le=256, description="Number of concurrent trials; with more than 1, each runs in its own process."
    )
    llm: LLMConfig = preset_field("llm", LLMConfig(), description="Name of a config in configs/llm, or a mapping.")

    @field_validator("space")
    @classmethod
    def _names_exist(cls, space: SpaceConfig) -> SpaceConfig:
        unknown = sorted(set(space.root) - set(trial_keys()))
        if unknown:
            raise ValueError(f"a trial cannot change {', '.join(unknown)}; it can change {', '.join(trial_keys())}")
        return space

    def trial(self) -> TrialConfig:
        """Trial 0: the config as it stands."""
        return TrialConfig(data=self.data, model=self.model, training=self.training)


def trial_keys() -> tuple[str, ...]:
    """Dotted names a trial may change, which are the names a search space may hold."""
    model = tuple(f"model.{name}" for name in ModelConfig.model_fields if name != "faithful")
    training = tuple(f"training.{name}" for name in TrainingConfig.model_fields if name != "optimizer_params")
    optimizer = tuple(f"training.optimizer_params.{name}" for name in OptimizerParams.model_fields)
    return TRIAL_DATA_KEYS + model + training + optimizer


def with_params(trial: TrialConfig, params: Params) -> TrialConfig:
    """The trial with dotted names replaced, validated again.

    Raises:
        ConfigError: a name cannot be changed by a trial, or the values do not go together.
    """
    keys = trial_keys()
    if unknown := sorted(set(params) - set(keys)):
        raise ConfigError(f"A trial cannot change {', '.join(unknown)}.", hint=f"It can change {', '.join(keys)}.")
    tree = trial.model_dump()
    for name, value in params.items():
        tree = replace_at(tree, name.split("."), value)
    try:
        return TrialConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(map(complaint, error.errors()))) from error


def at_rung(trial: TrialConfig, candidate: "StudyCandidate", full: Params) -> TrialConfig:
    """What a candidate of a study trains: as proposed, or on the rung of the last round at full budget."""
    return with_params(trial, {**candidate.params, **full} if candidate.rung else candidate.params)


def params_of(trial: TrialConfig, names: Iterable[str]) -> dict[str, Value]:
    """The values a trial has for dotted names: the inverse of `with_params`."""
    return {name: attrgetter(name)(trial) for name in names}


MEASURED = Basis(
    keys=("data.horizon",),
    # all that a trial may not change: the file, how it is read, its columns and parts
    data_keys=tuple(sorted({f"data.{name}" for name in DataConfig.model_fields} - {"data.horizon", *TRIAL_DATA_KEYS})),
    event=("study.opened", "data"),
)
