"""What `agentlab evolve` can be told: parents, what a child is made of, who breeds, what counts, what it may cost."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from agentlab.config.base import EnvPath, StrictModel, budget_field, machine_field, preset_field
from agentlab.config.keys import Key
from agentlab.llm.config import LLMConfig
from agentlab.lora.operators import OPERATORS
from agentlab.runs.comparability import Basis
from agentlab.search.arms import ArmName
from agentlab.train.config import Figures

MOST_POPULATION = 64
_BREEDERS = ("ga", "one-plus-lambda", "map-elites", "random")  # they need no numbers


class TasksConfig(StrictModel):
    """Labelled questions with choices. The search sees only `train`; `test` is opened once, at the end."""

    generate: tuple[str, ...] = Field(
        ("capitals", "sentiment", "times_table"),
        min_length=1,
        max_length=16,
        description="Question sets to generate, in equal shares, when no file is given.",
    )
    file: EnvPath | None = Field(None, description="JSONL file; each line has a question, choices and an answer.")
    train: int = Field(60, ge=8, le=10_000, description="Number of questions that the search sees.")
    test: int = Field(240, ge=8, le=10_000, description="Number of questions in the sealed split.")


class GenomeConfig(StrictModel):
    """What a child is made of."""

    kind: Literal["coefficients", "deltas"] = Field(
        "coefficients",
        description="coefficients: a weight for each parent, layer group and module type; deltas: adapters "
        "made from two others by crossover or from one by mutation.",
    )
    rank: int | None = Field(
        None, ge=1, le=1024, description="Rank of deltas; null means the largest rank of the parents."
    )
    operators: tuple[str, ...] = Field(
        ("sum", "svd-cross", "values", "rotate"), min_length=1, max_length=16, description="Operators that make deltas."
    )
    groups: int = Field(2, ge=1, le=16, description="Number of groups of adjacent layers, each with its own weights.")
    low: float = Field(0.0, ge=-4, le=0, description="Smallest weight.")
    high: float = Field(1.0, ge=0.1, le=4, description="Largest weight; an unmixed parent has weight 1.")


class FitnessConfig(StrictModel):
    """Weights of the terms, per standard deviation, relative to the task term's standard deviation in generation 0."""

    cooperation: float = Field(
        0.1, ge=0, le=10, description="Weight of a child's Shapley value in its generation's vote."
    )
    novelty: float = Field(
        0.1, ge=0, le=10, description="Weight of the distance from a child's answers to those of other children so far."
    )
    neighbours: int = Field(5, ge=1, le=64, description="Number of nearest children used to compute novelty.")


class RaceConfig(StrictModel):
    """Children clearly worse than the best of parents, blend and base stop early, and pay for what they answered."""

    first: int = Field(
        32,
        ge=8,
        description="Questions a child answers before it can be stopped; at or above the value of tasks.train, none is "
        "stopped early.",
    )
    level: float = Field(0.99, gt=0.5, lt=1, description="Confidence level of the paired interval for the difference.")


class EvolveConfig(StrictModel):
    """One `agentlab evolve` run."""

    seed: int = Field(0, ge=0, lt=2**32, description="Seed for the questions and the search.")
    base: EnvPath = Field("smollm2-135m", description="A model name, or the path of a checkpoint folder.")
    parents: tuple[EnvPath, ...] = Field(
        ("capitals", "sentiment", "times_table"), max_length=16, description="Adapters of `base`: names or paths."
    )
    tasks: TasksConfig = Field(TasksConfig(), description="The questions that children are scored on.")
    genome: GenomeConfig = Field(GenomeConfig(), description="Representation of a child.")
    algorithm: ArmName = Field("cma-es", description="Search algorithm; random is the baseline.")
    population: Annotated[int, Field(ge=2, le=MOST_POPULATION)] = Field(
        16, description="Children per generation, scored in the same batches."
    )
    max_items: int = budget_field(4800, ge=1, description="Maximum answers per search, over all children.")
    max_trials: int | None = budget_field(None, ge=1, description="Maximum children in total; null means no limit.")
    max_seconds: float | None = budget_field(
        None, gt=0, description="Maximum seconds spent answering; null means no limit."
    )
    fitness: FitnessConfig = Field(FitnessConfig(), description="Weights of the fitness terms besides the task.")
    race: RaceConfig = Field(RaceConfig(), description="Rules for stopping children early.")
    control: Literal["light", "full"] = Field(
        "light", description="light: one random search as baseline; full: pairs of searches over several seeds."
    )
    control_seeds: int = Field(8, ge=5, le=100, description="Number of pairs of searches when control is full.")
    llm: LLMConfig = preset_field("llm", LLMConfig(), description="Models that propose half of the children.")
    dtype: Figures = Field("float32", description="Data type for the base model; bfloat16 changes some answers.")
    threads: int | None = machine_field(
        None, ge=1, le=1024, description="CPU threads for the base model; null means one per core."
    )

    def problems(self) -> Iterator[tuple[Key, str]]:
        if len(self.parents) < 2:
            yield ("parents",), "evolution needs at least two parents"
        if len(set(self.parents)) < len(self.parents):
            yield ("parents",), "a parent is named twice"
        if self.population < self.starts:
            yield (
                ("population",),
                f"must be at least {self.starts}: generation 0 holds the parents, their blend and the base",
            )
        if unknown := sorted(set(self.genome.operators) - (set(OPERATORS.names) - {"concat"})):
            yield ("genome", "operators"), f"unknown or rank-changing operators: {', '.join(unknown)}"
        if self.genome.kind == "deltas" and self.algorithm not in _BREEDERS:
            yield (
                ("algorithm",),
                f"{self.algorithm} only searches over numbers; for deltas, use one of {', '.join(_BREEDERS)}",
            )
        if self.max_items < self.population * self.tasks.train:
            minimum = self.population * self.tasks.train
            yield ("max_items",), f"must be at least {minimum} (population times tasks.train), which generation 0 uses"

    @property
    def starts(self) -> int:
        """Children that are known before: the parents, their uniform blend, and the base."""
        return len(self.parents) + 2


MEASURED = Basis(
    keys=("tasks.generate", "tasks.train", "tasks.test", "base", "seed"),
    data_keys=("tasks.file",),
    event=("split.made", "test"),
)
