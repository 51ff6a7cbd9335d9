"""What `agentlab compress` can be told: a base, text, a goal, recipes, and what the work may cost."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from agentlab.compress.goal import UnreadGoalError, read_goal
from agentlab.compress.goal_reader import refusal
from agentlab.compress.intensity import KEY, look_up_intensity
from agentlab.compress.recipe import PORTFOLIO, Limit, Recipe, default_space, left_out, rules, shape_limits
from agentlab.config.base import EnvPath, EnvText, StrictModel, budget_field, machine_field, preset_field
from agentlab.config.keys import Key
from agentlab.errors import AgentlabError, UsageError
from agentlab.llm.config import LLMConfig
from agentlab.llm.provider_config import check_base_url
from agentlab.runs.comparability import Basis
from agentlab.search.arms import ArmName
from agentlab.search.constraints import Constraint
from agentlab.search.space import SearchSpace, SpaceConfig
from agentlab.search.types import Value

SCORED = 2  # calibration windows that a recovery is scored on
_MOST_EPOCHS = 1000
_MASS = re.compile(r"(?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)\s*(?P<unit>mg|g|kg|t)?")
_GRAMS = {"mg": 1e-3, "g": 1.0, "kg": 1e3, "t": 1e6}


def grams(mass: str | float) -> float:
    """A mass of CO2 in grams; a bare number is in kilograms.

    Raises:
        ValueError: it is no mass.
    """
    match = _MASS.fullmatch(str(mass).strip().lower())
    if match is None or float(match["number"]) <= 0:
        raise ValueError(f"{mass!r} is not a valid CO2 mass; use for example 0.5g, 100g or 0.1kg")
    return float(match["number"]) * _GRAMS[match["unit"] or "kg"]


def _mass(mass: str | float | None) -> str | float | None:
    if mass is not None:
        grams(mass)
    return mass


def _goal(text: str) -> str:
    try:
        return str(read_goal(text))
    except UnreadGoalError:
        return text  # a model of `llm` may read it, see `problems`
    except AgentlabError as error:
        raise ValueError(f"{error.message} {error.hint}") from error


class TextConfig(StrictModel):
    """The text for calibration, and separate text for measuring."""

    file: EnvPath | None = Field(None, description="Text file with paragraphs; null uses Python's built-in help.")
    length: int = Field(256, ge=16, le=4096, description="Tokens per window.")
    calibration: int = Field(16, ge=1, le=4096, description="Windows for calibration.")
    held_out: int = Field(
        8, ge=1, le=1024, description="Held-out windows in the first measurement; near a bound, up to 64 are used."
    )


class RecoveryConfig(StrictModel):
    """Training after a cut, to recover quality."""

    steps: int = Field(40, ge=1, le=100_000, description="Optimiser steps.")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="Peak learning rate.")
    rank: int = Field(16, ge=1, le=256, description="Rank of the LoRA used for recovery.")
    batch: int = Field(4, ge=1, le=1024, description="Windows per step.")


def _country(value: float | str) -> float | str:
    try:
        look_up_intensity(value)
    except AgentlabError as error:
        raise ValueError(f"{error.message} {error.hint}") from error
    return value


class EnergyConfig(StrictModel):
    """How energy is estimated where no hardware counter is available, and how much CO2 it emits."""

    watts: float = Field(20.0, gt=0, le=10_000, description="Assumed power of a busy CPU core, in watts.")
    intensity: Annotated[Annotated[float, Field(gt=0, le=5_000)] | str, AfterValidator(_country)] = Field(
        400.0, description="Carbon intensity in g CO2 per kWh: a number, or a country such as Germany, DEU or DE."
    )
    zone: EnvText | None = Field(
        None,
        description=f"Electricity Maps zone to query, such as DE; requires {KEY} to be set. Null disables the query.",
    )
    service: Annotated[str, AfterValidator(check_base_url)] = Field(
        "https://api.electricitymaps.com/v3", description="API address of Electricity Maps or a compatible service."
    )


class CompressBudgetConfig(StrictModel):
    """Limits of a run. The first one reached ends it; a stage forecast to exceed a limit is not started."""

    trials: int = budget_field(12, ge=1, le=10_000, description="Maximum number of recipes in the search.")
    seconds: float | None = budget_field(None, gt=0, description="Seconds of work; null sets no limit.")
    joules: float | None = budget_field(None, gt=0, description="Energy in joules; null sets no limit.")
    carbon: Annotated[str | float | None, AfterValidator(_mass)] = budget_field(
        None, description="CO2: 0.5g, 100g, 0.1kg; a plain number is in kg. Null sets no limit."
    )

    @property
    def limits(self) -> Mapping[str, float]:
        carbon = None if self.carbon is None else grams(self.carbon)
        limits = {"seconds": self.seconds, "joules": self.joules, "grams": carbon}
        return {unit: limit for unit, limit in limits.items() if limit is not None}


class CompressConfig(StrictModel):
    """One `agentlab compress` run."""

    seed: int = Field(0, ge=0, lt=2**32, description="Seed for the search and for all training.")
    base: EnvPath = Field("smollm2-135m", description="Model name, or path of a checkpoint folder.")
    models: tuple[EnvPath, ...] | None = Field(
        None,
        min_length=1,
        max_length=16,
        description="Several bases to compress under one shared budget; null uses `base` alone.",
    )
    text: TextConfig = Field(TextConfig(), description="Text for calibration and measurement.")
    goal: Annotated[str, AfterValidator(_goal)] = Field(
        "smallest with < 5 % loss", description="Goal as a sentence: one measure to optimise, and bounds on others."
    )
    portfolio: tuple[Recipe, ...] | None = Field(
        None, max_length=64, description="Known recipes to start from; null uses the built-in ones."
    )
    first: int = Field(4, ge=1, le=64, description="Number of portfolio recipes that the search starts with.")
    space: SpaceConfig | None = Field(None, description="Search space; null searches every built-in technique.")
    constraints: tuple[Constraint, ...] | None = Field(
        None, description="Constraints on the search space; null uses the built-in ones."
    )
    planner: Literal["portfolio", "tpe", "random", "agent"] = Field(
        "agent",
        description="Proposer of recipes after the initial ones: the portfolio only, an optimiser, or an agent "
        "that also uses a model from `llm`.",
    )
    llm: LLMConfig = preset_field(
        "llm", LLMConfig(), description="Models for the agent; without one, the planner is `tpe`."
    )
    options: int = Field(4, ge=2, le=8, description="Number of candidates that a small model from `llm` chooses from.")
    beside: tuple[Literal["portfolio", "random", "tpe"], ...] = Field(
        ("portfolio",), description="Baselines for the search, each run at the same cost as the search."
    )
    control: Literal["light", "full"] = Field(
        "light",
        description="How to measure the agent's benefit: by random assignment within the search, or also by "
        "paired searches.",
    )
    control_seeds: int = Field(8, ge=5, le=100, description="Number of pairs of searches with --control full.")
    recovery: RecoveryConfig = Field(RecoveryConfig(), description="Recovery training after a cut.")
    memory: EnvPath = Field("compress-memory", description="Folder with the results of earlier runs.")
    remember: bool = Field(True, description="Reuse the results in `memory`, and add new ones.")
    energy: EnergyConfig = Field(EnergyConfig(), description="Energy and CO2.")
    budget: CompressBudgetConfig = Field(CompressBudgetConfig(), description="Budget limits of the run.")
    threads: int | None = machine_field(
        None, ge=1, le=1024, description="Threads for running models; null uses one per core."
    )

    def problems(self) -> Iterator[tuple[Key, str]]:
        if unread := refusal(self.goal, self.llm):
            yield ("goal",), unread
        for index, recipe in enumerate(self.recipes):
            for key, problem in recipe.problems():
                yield ("portfolio", str(index), *key), problem
        if len(set(self.beside)) < len(self.beside):
            yield ("beside",), "contains a duplicate"
        if len(set(self.bases)) < len(self.bases):
            yield ("models",), "contains a duplicate"
        if self.first > len(self.recipes):
            yield ("first",), f"exceeds the size of the portfolio ({len(self.recipes)})"
        if any(recipe.recovery != "none" for recipe in self.recipes):
            learnt = self.text.calibration - SCORED
            if learnt < 1:
                yield (
                    ("text", "calibration"),
                    f"recovery uses {SCORED} windows for scoring and needs at least one more for training",
                )
            elif self.recovery.steps * self.recovery.batch > _MOST_EPOCHS * learnt:
                yield (
                    ("recovery", "steps"),
                    f"would repeat each of the {learnt} training windows more than {_MOST_EPOCHS} times",
                )
        yield from self._impossible_choices()
        space = SearchSpace.of(self.searched_space)
        for index, recipe in enumerate(self.recipes):
            if outside := space.problems(point(recipe, space)) or _unsearched_settings(recipe, space):
                yield ("portfolio", str(index)), f"lies outside `space`: {'; '.join(outside)}"

    def _impossible_choices(self) -> Iterator[tuple[Key, str]]:
        for name, spec in self.searched_space.root.items():
            for value in getattr(spec, "choices", (spec.decode(0.0), spec.decode(1.0))):
                try:
                    Recipe.model_validate({name: value})
                except ValidationError as error:
                    yield ("space", name), f"{value!r}: {error.errors()[0]['msg']}"

    @property
    def bases(self) -> tuple[str, ...]:
        return self.models or (self.base,)

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        return self.portfolio or tuple(Recipe.model_validate(dict(params)) for params in PORTFOLIO)

    @property
    def arm(self) -> ArmName:
        """The optimiser: alone, or that of the agent."""
        return "random" if self.planner == "random" else "tpe"

    @property
    def searched_space(self) -> SpaceConfig:
        return self.space or default_space(self.recipes)

    @property
    def rules(self) -> tuple[Constraint, ...]:
        return tuple(rules(self.searched_space)) if self.constraints is None else self.constraints


def limits_of(config: CompressConfig, checkpoint: Path) -> list[Limit]:
    """What of a config's recipes a base cannot go through, by its config.json and tokenizer.

    Raises:
        ModelFileError: its config.json cannot be read.
    """
    from agentlab.gguf.writing import why_not_gguf
    from agentlab.hf.checkpoint import read_config

    return shape_limits(read_config(checkpoint), why_not_gguf(checkpoint), config.searched_space)


def apply_limits(config: CompressConfig, limits: Sequence[Limit], base: str) -> tuple[SearchSpace, list[Recipe]]:
    """What is searched of a base, and the recipes of the portfolio that it can go through.

    Raises:
        UsageError: there are none.
    """
    space = SearchSpace.of(config.searched_space, [*config.rules, *(limit.rule for limit in limits)])
    recipes = [recipe for recipe in config.recipes if not space.problems(point(recipe, space))]
    if not recipes:
        raise UsageError(
            f"No recipe in the portfolio can be applied to {base}. {left_out(limits)}",
            hint="Choose other recipes in `portfolio`, or another base.",
        )
    return space, recipes


def point(recipe: Recipe, space: SearchSpace) -> dict[str, Value]:
    """The recipe as a point of a space: the parameters that are active."""
    return space.reduce({name: value for name, value in recipe.model_dump().items() if value is not None})


def _unsearched_settings(recipe: Recipe, space: SearchSpace) -> list[str]:
    settings = recipe.model_dump(exclude_defaults=True)
    return [f"{name} is not searched" for name in settings if name not in space.parameters]


MEASURED = Basis(
    keys=("base", "models", "text.length", "text.calibration", "text.held_out"),
    data_keys=("text.file",),
    event=("texts.cut", "sha256"),
)
