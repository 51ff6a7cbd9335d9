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
    """Labelled questions with choices. The search sees `train` alone; `test` is opened once, at the end."""

    generate: tuple[str, ...] = Field(
        ("capitals", "sentiment", "times_table"),
        min_length=1,
        max_length=16,
        description="Sets that agentlab makes, in equal shares, where there is no file.",
    )
    file: EnvPath | None = Field(None, description="JSONL with question, choices and answer in each line.")
    train: int = Field(60, ge=8, le=10_000, description="Questions that the search sees.")
    test: int = Field(240, ge=8, le=10_000, description="Questions of the sealed split.")


class GenomeConfig(StrictModel):
    """What a child is made of."""

    kind: Literal["coefficients", "deltas"] = Field(
        "coefficients",
        description="coefficients: a weight for each parent, group of layers and type of module; deltas: adapters, "
        "made of two others by crossover or of one by mutation.",
    )
    rank: int | None = Field(None, ge=1, le=1024, description="Of deltas; null is the largest of the parents.")
    operators: tuple[str, ...] = Field(
        ("sum", "svd-cross", "values", "rotate"), min_length=1, max_length=16, description="What makes deltas."
    )
    groups: int = Field(2, ge=1, le=16, description="Groups of neighbouring layers with weights of their own.")
    low: float = Field(0.0, ge=-4, le=0, description="Smallest weight.")
    high: float = Field(1.0, ge=0.1, le=4, description="Largest weight; parents have 1.")


class FitnessConfig(StrictModel):
    """Weights of the terms: how much a standard deviation of one counts, beside one of the task's in generation 0."""

    cooperation: float = Field(0.1, ge=0, le=10, description="Shapley value in the vote of a generation.")
    novelty: float = Field(0.1, ge=0, le=10, description="Distance of a child's answers to those of all before it.")
    neighbours: int = Field(5, ge=1, le=64, description="Nearest ones to which the distance counts.")


class RaceConfig(StrictModel):
    """Who is clearly worse than the best of parents, blend and base stops early, and is charged what it was asked."""

    first: int = Field(32, ge=8, description="Questions before anybody stops; as many as there are asks all of all.")
    level: float = Field(0.99, gt=0.5, lt=1, description="Of the paired interval of the difference.")


class EvolveConfig(StrictModel):
    """One `agentlab evolve` run."""

    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the questions and of the search.")
    base: EnvPath = Field("smollm2-135m", description="A model's name or the path of a checkpoint folder.")
    parents: tuple[EnvPath, ...] = Field(
        ("capitals", "sentiment", "times_table"), max_length=16, description="Adapters of `base`: names, or paths."
    )
    tasks: TasksConfig = Field(TasksConfig(), description="What a child has to be good at.")
    genome: GenomeConfig = Field(GenomeConfig(), description="What a child is made of.")
    algorithm: ArmName = Field("cma-es", description="Who breeds; random is the control itself.")
    population: Annotated[int, Field(ge=2, le=MOST_POPULATION)] = Field(
        16, description="Children of a generation, scored in the same batches."
    )
    max_items: int = budget_field(4800, ge=1, description="Questions answered in a search, by all children together.")
    max_trials: int | None = budget_field(None, ge=1, description="Children in all; null is no bound.")
    max_seconds: float | None = budget_field(None, gt=0, description="Seconds of answering; null is no bound.")
    fitness: FitnessConfig = Field(FitnessConfig(), description="What counts beside the task.")
    race: RaceConfig = Field(RaceConfig(), description="Who stops early.")
    control: Literal["light", "full"] = Field(
        "light", description="light: one random search beside it; full: pairs of searches over several seeds."
    )
    control_seeds: int = Field(8, ge=5, le=100, description="Pairs of searches under full control.")
    llm: LLMConfig = preset_field("llm", LLMConfig(), description="Models that propose half of the children.")
    dtype: Figures = Field("float32", description="Type that the base computes in; bfloat16 changes some answers.")
    threads: int | None = machine_field(None, ge=1, le=1024, description="Of the base; null is one per core.")

    def problems(self) -> Iterator[tuple[Key, str]]:
        if len(self.parents) < 2:
            yield ("parents",), "evolution needs at least two parents"
        if len(set(self.parents)) < len(self.parents):
            yield ("parents",), "a parent is named twice"
        if self.population < self.starts:
            yield ("population",), f"generation 0 holds {self.starts} that all searches share: parents, blend, base"
        if unknown := sorted(set(self.genome.operators) - (set(OPERATORS.names) - {"concat"})):
            yield ("genome", "operators"), f"no operator that keeps a rank is called {', '.join(unknown)}"
        if self.genome.kind == "deltas" and self.algorithm not in _BREEDERS:
            yield ("algorithm",), f"{self.algorithm} searches numbers; deltas are bred by {', '.join(_BREEDERS)}"
        if self.max_items < self.population * self.tasks.train:
            minimum = self.population * self.tasks.train
            yield ("max_items",), f"generation 0 alone takes {minimum}: population times tasks.train"

    @property
    def starts(self) -> int:
        """Children that are known before: the parents, their uniform blend, and the base."""
        return len(self.parents) + 2


MEASURED = Basis(
    keys=("tasks.generate", "tasks.train", "tasks.test", "base", "seed"),
    data_keys=("tasks.file",),
    event=("split.made", "test"),
)
