"""What an agent of a compression can do, as plain typed functions: settings that are checked, and what was measured.

An estimate says that it is one: it comes from what was measured of other recipes and bases, see `transfer`.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError, create_model

from agentlab.compress.config import RecoveryConfig, point
from agentlab.compress.experiment_memory import RememberedExperiment
from agentlab.compress.goal import Goal, read_goal
from agentlab.compress.objective import alone
from agentlab.compress.recipe import Pruner, Quantizer, Recipe, Recovery, Structure, has_settings, recipe_of
from agentlab.compress.transfer import HERE, MeasuredRecipe, RecipeForecast
from agentlab.config.base import StrictModel
from agentlab.config.validation_messages import complaint
from agentlab.errors import UnknownNameError, UsageError
from agentlab.llm.tool_loop import Action
from agentlab.search.screen import ScreenRules
from agentlab.search.types import Params, Trial, TrialResult, Value
from agentlab.stats.fronts import front
from agentlab.stats.intervals import paired_interval
from agentlab.study.state import trial_id

_SHOWN = 12  # rows of a table
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Situation:
    """What is known when an agent is asked."""

    goal: Goal
    rules: ScreenRules  # the space, and what a recipe is held against
    trials: Sequence[Trial] = ()  # of the run so far
    here: Sequence[RememberedExperiment] = ()  # of this base on this text
    elsewhere: Sequence[RememberedExperiment] = ()  # of others

    def forecast(self) -> RecipeForecast:
        rows = self.rows()
        known = [MeasuredRecipe(HERE, row["params"], row["size"], row["kl"], row["joules"]) for row in rows]
        return RecipeForecast(self.rules.space, [*known, *(experiment.elsewhere for experiment in self.elsewhere)])

    def rows(self) -> list[dict[str, Any]]:
        """What was measured of this base, by the run or before it, each recipe once. What is research only is not."""
        done = [(trial_id(trial.number), trial.proposal.params, trial.result) for trial in self.trials]
        done += [(experiment.key, experiment.recipe, experiment.result(self.goal, None)) for experiment in self.here]
        rows: dict[str, dict[str, Any]] = {}
        for name, params, result in done:
            if result.objectives and not recipe_of(params).research:
                rows.setdefault(str(recipe_of(params)), _row(name, params, result))
        return list(rows.values())


def _row(name: str, params: Params, result: TrialResult) -> dict[str, Any]:
    (size, kl), shares = result.objectives, result.metrics["shares"]
    return {
        "id": name,
        "recipe": str(recipe_of(params)),
        "params": dict(params),
        "size": size,
        "kl": kl,
        "loss": shares["loss"],
        "speed": shares["speed"],
        "joules": alone(result.metrics)["joules"],
        "bytes": result.metrics["size"],
        "shares": shares,
        "within": result.metrics.get("within", {}),
        "windows": list(result.items),
    }


def summarize_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as a model is shown it."""
    values = {name: row[name] for name in ("id", "recipe", "size", "kl", "loss", "speed", "joules")}
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in values.items()}


# -- settings ---------------------------------------------------------------------------------------------------


def configure_quantization(
    quantizer: Quantizer, quantization_bits: int, group: int = 64, importance: bool = False
) -> dict[str, Any]:
    """Settings of a quantization, checked: rtn, gptq and awq take 4 or 8 bits, kquant 2 to 6 or 8."""
    settings = {"quantizer": quantizer, "quantization_bits": quantization_bits, "group": group}
    return _check_settings({**settings, "importance": importance})


def configure_pruning(
    structure: Structure = "none",
    kept: float = 1.0,
    pruner: Pruner = "none",
    pruning_sparsity: float | str | None = None,
) -> dict[str, Any]:
    """Settings of a cut, checked: width or layers of which a share is kept; or zeros, which save nothing today."""
    cut = {"structure": structure, "kept": kept, "pruner": pruner, "pruning_sparsity": pruning_sparsity}
    return _check_settings(cut)


def _check_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"recipe": _check_recipe(read(Recipe, settings)).model_dump(exclude_defaults=True)}


def configure_lora(rank: int = 16, steps: int = 40, learning_rate: float = 2e-4) -> dict[str, Any]:
    """Settings of a recovery by LoRA on text, checked: part of a recipe with a cut, and of the run's config."""
    return _recovery("lora", rank, steps, learning_rate)


def setup_distillation(rank: int = 16, steps: int = 40, learning_rate: float = 2e-4) -> dict[str, Any]:
    """Settings of a recovery from the base's own logits, checked: part of a recipe with a cut, and of the config."""
    return _recovery("distil", rank, steps, learning_rate)


def _recovery(kind: str, rank: int, steps: int, learning_rate: float) -> dict[str, Any]:
    config = read(RecoveryConfig, {"rank": rank, "steps": steps, "learning_rate": learning_rate})
    return {"recipe": {"recovery": kind}, "config": {"recovery": config.model_dump()}}


def read(model: type[M], raw: Any) -> M:
    """What a caller has written, as a model.

    Raises:
        UsageError: what is wrong, in sentences.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise UsageError(f"Invalid input: {'; '.join(map(complaint, error.errors()))}.") from error


def _check_recipe(recipe: Recipe) -> Recipe:
    if wrong := [problem for _, problem in recipe.problems()]:
        raise UsageError(f"Invalid recipe: {'; '.join(wrong)}.")
    return recipe


# -- what is known ----------------------------------------------------------------------------------------------


def estimate(situation: Situation, recipe: Recipe) -> dict[str, Any]:
    """An estimate, no measurement: bytes as a share of the bfloat16 base, KL, joules; the report scores it."""
    forecast = situation.forecast()
    if not forecast.known:
        raise UsageError("Nothing has been measured yet, so there is no basis for an estimate.")
    params = point(_check_recipe(recipe), situation.rules.space)
    if recipe_of(params) != recipe:
        raise UsageError("The recipe sets a key that is not searched, so it cannot be estimated.")
    if wrong := situation.rules.space.problems(params):
        raise UsageError(f"The recipe is outside the search space: {'; '.join(wrong)}.")
    figures = {name: float(f"{figure:.3g}") for name, figure in asdict(forecast.of([params])[0]).items()}
    return {"estimate": True, "measurements": len(forecast.known), **figures}


def estimate_lora_impact(situation: Situation, recipe: Recipe) -> dict[str, Any]:
    """Estimates of a recipe with a cut, without recovery and with LoRA."""
    return _impact(situation, recipe, "lora")


def estimate_distillation(situation: Situation, recipe: Recipe) -> dict[str, Any]:
    """Estimates of a recipe with a cut, without recovery and with distillation."""
    return _impact(situation, recipe, "distil")


def _impact(situation: Situation, recipe: Recipe, kind: Recovery) -> dict[str, Any]:
    names: tuple[Recovery, ...] = ("none", kind)
    return {name: estimate(situation, recipe.model_copy(update={"recovery": name})) for name in names}


def compare_models(situation: Situation, one: str, other: str) -> dict[str, Any]:
    """The difference in KL between two measured recipes, by their ids, window by window, with an interval."""
    rows = {row["id"]: row for row in situation.rows()}
    for name in (one, other):
        if name not in rows:
            raise UnknownNameError("measured recipe", name, list(rows))
    first, second = rows[one], rows[other]
    interval = paired_interval(first["windows"], second["windows"], np.random.default_rng(0))
    difference = {"kl": interval.estimate, "low": interval.low, "high": interval.high, "windows": len(first["windows"])}
    return {"one": summarize_row(first), "other": summarize_row(second), "one less other": difference}


def query_experiments(situation: Situation, settings: dict[str, Value] | None = None) -> dict[str, Any]:
    """What was measured of this base, of recipes with these settings, best first for the goal."""
    filters = settings or {}
    for name in filters:
        if name not in Recipe.model_fields:
            raise UnknownNameError("setting", name, list(Recipe.model_fields))
    rows = [row for row in situation.rows() if has_settings(recipe_of(row["params"]), filters)]
    ranked = sorted(rows, key=lambda row: situation.goal.worth(row["shares"], row["bytes"], row["within"]))
    return {"found": len(ranked), "best": [summarize_row(row) for row in ranked[:_SHOWN]]}


def get_best_config(situation: Situation, objective: str = "") -> dict[str, Any]:
    """The recipe that serves an objective best of all that were measured; without one, the run's."""
    goal = read_goal(objective) if objective else situation.goal
    best = query_experiments(replace(situation, goal=goal))["best"]
    if not best:
        raise UsageError("Nothing has been measured yet.")
    row = next(candidate for candidate in situation.rows() if candidate["id"] == best[0]["id"])
    measured = row["shares"], row["bytes"], row["within"]
    verdict = {"verdict": goal.verdict(*measured), "broken": goal.broken(*measured)}
    return {"goal": str(goal), **verdict, **best[0], "params": row["params"]}


def show_front(situation: Situation) -> dict[str, Any]:
    """The recipes that no other one beats in both size and KL."""
    rows = situation.rows()
    points = [(row["size"], row["kl"]) for row in rows]
    best = [rows[index] for index in front(points)]
    return {"measured": len(rows), "front": [summarize_row(row) for row in sorted(best, key=lambda row: row["size"])]}


# -- as tools of a language model -------------------------------------------------------------------------------

Function = Callable[..., dict[str, Any]]
SPECIALISTS: Mapping[str, tuple[str, tuple[Function, ...]]] = {
    "quantization": (
        "You know how weights are rounded. k-quants are llama.cpp's own and the fastest to make; GPTQ beats AWQ and "
        "RTN at 4 bits; importance helps k-quants below 6 bits.",
        (configure_quantization, estimate, query_experiments),
    ),
    "pruning": (
        "You know what can be left out. Cuts of width or layers save bytes and time and need recovery; zeros save "
        "neither in today's formats.",
        (configure_pruning, estimate, query_experiments),
    ),
    "lora": (
        "You know recovery by low-rank changes, trained on text after a cut.",
        (configure_lora, estimate_lora_impact, query_experiments),
    ),
    "distillation": (
        "You know recovery from the original's distributions, which regains more than text does, for more energy.",
        (setup_distillation, estimate_distillation, compare_models),
    ),
    "evaluation": (
        "You know what was measured, and how sure it is.",
        (show_front, compare_models, query_experiments, get_best_config),
    ),
}


def action(function: Function, situation: Situation) -> Action:
    """A function as a tool; its parameters are what the model fills in."""
    parameters = dict(inspect.signature(function).parameters)
    leading_args = (situation,) if "situation" in parameters else ()
    parameters.pop("situation", None)
    fields: dict[str, Any] = {
        name: (parameter.annotation, ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in parameters.items()
    }
    takes = create_model(function.__name__, __base__=StrictModel, **fields)

    def run(arguments: Any) -> str:
        return json.dumps(function(*leading_args, **{name: getattr(arguments, name) for name in parameters}))

    return Action(function.__name__, (function.__doc__ or "").partition("\n")[0], takes, run)
