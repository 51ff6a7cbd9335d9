"""The steps of an agent in Python: plan, carry out one recipe, reflect; and its tools alone.

    agent = create_compression_deep_agent("embedded", workspace_dir="compress-memory")
    plan = agent.plan_compression("smollm2-135m", "smallest with < 5 % loss", carbon_budget="1g")
    print(plan["output"])
    found = agent.execute_experiment(CompressionConfig(quantization_bits=4))
    agent.reflect_and_improve([found], "smallest with < 5 % loss")

An experiment is a run folder like any other, and is remembered in the workspace: the same recipe is not made twice.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import model_validator

from agentlab.compress import api, tools
from agentlab.compress.agent import alone
from agentlab.compress.config import CompressConfig
from agentlab.compress.experiment_memory import CompressMemory, on_one_text
from agentlab.compress.goal import Goal, read_goal
from agentlab.compress.recipe import Recipe
from agentlab.compress.tools import configure_lora as configure_lora
from agentlab.compress.tools import setup_distillation as setup_distillation
from agentlab.compress.verdict import rows_of
from agentlab.errors import GateError, UsageError
from agentlab.models.base_model import find_base, import_base
from agentlab.runs.context import Context
from agentlab.runs.journal import read_events
from agentlab.search.screen import ScreenRules
from agentlab.search.space import SearchSpace
from agentlab.session import begin, surroundings
from agentlab.study.state import rebuild

_BASE, _OBJECTIVE, _WORKSPACE = "smollm2-135m", "smallest with < 5 % loss", "compress-memory"


class CompressionConfig(Recipe):
    """A recipe that may say less: bits alone are a k-quant, a share of zeros alone is SparseGPT's."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, settings: Any) -> Any:
        if not isinstance(settings, Mapping):
            return settings
        recipe_fields = {
            name: value for name, value in settings.items() if not (name == "pruning_sparsity" and value == 0)
        }
        if recipe_fields.get("quantization_bits", 16) != 16:
            recipe_fields.setdefault("quantizer", "kquant")
        if recipe_fields.get("pruning_sparsity") is not None:
            recipe_fields.setdefault("pruner", "sparsegpt")
        return recipe_fields


@dataclass
class CompressionDeepAgent:
    """An agent with a language model and a workspace. What it is told of model and objective holds until told again."""

    llm: str | Mapping[str, Any]  # a name in configs/llm, the path of a YAML file, or such a mapping
    workspace_dir: Path  # the memory
    overrides: Mapping[str, Any] = field(default_factory=dict)  # dotted config key -> value, for all that it runs
    model_name: str = _BASE
    objective: str = _OBJECTIVE

    def plan_compression(
        self, model_name: str, objective: str = _OBJECTIVE, carbon_budget: float | str | None = None
    ) -> dict[str, Any]:
        """What to look at: `output` in words, `todos`, `recipes` with estimates, and `by` whom.

        Errors: those of `run_compression_optimization`, before work starts.
        """
        agent = replace(self, model_name=model_name, objective=objective)
        config, context = agent._check_config(carbon_budget)
        self.model_name, self.objective = model_name, objective
        base = find_base(config.base, context.workspace).path.name
        return alone(config, context, base, (), has_ended=False).model_dump()

    def execute_experiment(self, config: Recipe | Mapping[str, Any]) -> dict[str, Any]:
        """Carry one recipe out and measure its file: the row of the report, with `run`, the folder of the export.

        Errors: those of `run_compression_optimization`; a recipe that misses the objective's bounds is a result.
        """
        recipe = config if isinstance(config, Recipe) else tools.read(CompressionConfig, config)
        if wrong := [problem for _, problem in recipe.problems()]:
            raise UsageError(f"Invalid recipe: {'; '.join(wrong)}.")
        goal = str(Goal(read_goal(self.objective).measure))  # its bounds decide between recipes, later
        portfolio = [recipe.model_dump(exclude_defaults=True)]
        single_recipe = {"portfolio": portfolio, "first": 1, "planner": "portfolio", "beside": [], "goal": goal}
        try:
            done = api.run_compression_optimization(overrides={**self._changes(None), **single_recipe})
            path, rows = done.path, done.result.models[0].rows
        except GateError as error:  # it has failed, or it serves research alone and wins nothing
            if error.run is None:
                raise
            path = Path(error.run["path"])
            measured_rows = rows_of({"search": rebuild(read_events(path / "events.jsonl")).trials}, read_goal(goal), {})
            if not (rows := [candidate for candidate in measured_rows if not candidate.failed]):
                raise
        row = next(candidate for candidate in rows if candidate.recipe == str(recipe))
        return {**row.model_dump(), "run": str(path)}

    def reflect_and_improve(
        self, solutions: Sequence[Mapping[str, Any]], objective: str | None = None
    ) -> dict[str, Any]:
        """What was learnt from these and all remembered experiments, and recipes to try next; keys: see `plan`.

        Args:
            solutions: what `execute_experiment` has returned; all of it is remembered already.
            objective: None is the one of before.
        """
        agent = replace(self, objective=self.objective if objective is None else objective)
        config, context = agent._check_config(None)
        self.objective = agent.objective
        wrong_count = sum(not (isinstance(solution, Mapping) and "params" in solution) for solution in solutions)
        if wrong_count:
            raise UsageError(f"{wrong_count} of the solutions did not come from execute_experiment.")
        base = find_base(config.base, context.workspace).path.name
        return alone(config, context, base, (), has_ended=True).model_dump()

    def _changes(self, carbon_budget: float | str | None) -> dict[str, Any]:
        fields = {"base": self.model_name, "goal": self.objective, "budget.carbon": carbon_budget}
        defaults = {"llm": self.llm, "planner": "agent", "memory": str(self.workspace_dir.resolve()), "remember": True}
        return {**defaults, **self.overrides, **{key: value for key, value in fields.items() if value is not None}}

    def _check_config(self, carbon_budget: float | str | None) -> tuple[CompressConfig, Context]:
        from agentlab.config.overrides import Override

        context = surroundings(os.environ, Path.cwd())
        overrides = [Override(key, value, "plan") for key, value in self._changes(carbon_budget).items()]
        session = begin("compress", None, overrides, context=context, runs_dir=context.workspace.runs, planning=True)
        return session.experiment.config, context  # type: ignore[attr-defined] # a CompressExperiment


def create_compression_deep_agent(
    model_name: str | Mapping[str, Any] = "embedded",
    workspace_dir: str | Path = _WORKSPACE,
    overrides: Mapping[str, Any] | None = None,
) -> CompressionDeepAgent:
    """An agent. `model_name` is its `llm`, or a Claude model by its name, with the key in ANTHROPIC_API_KEY."""
    return CompressionDeepAgent(api.planner_llm(model_name), Path(workspace_dir), overrides or {})


# -- tools alone ----------------------------------------------------------------------------------------------------


def _situation(model_name: str, workspace_dir: str | Path, objective: str) -> tools.Situation:
    config, context = CompressConfig(), surroundings(os.environ, Path.cwd())
    base = find_base(model_name, context.workspace).path.name
    space = SearchSpace.of(config.searched_space, config.rules)
    experiments = CompressMemory(Path(workspace_dir)).experiments()
    done = [experiment for experiment in experiments if experiment.status == "finished"]
    return tools.Situation(read_goal(objective), ScreenRules(space), (), *on_one_text(done, base))


def estimate_lora_impact(
    recipe: Recipe, model_name: str = _BASE, workspace_dir: str | Path = _WORKSPACE
) -> dict[str, Any]:
    """Estimates of a recipe with a cut, without recovery and with LoRA, from what the workspace remembers."""
    return tools.estimate_lora_impact(_situation(model_name, workspace_dir, _OBJECTIVE), recipe)


def estimate_distillation(
    recipe: Recipe, model_name: str = _BASE, workspace_dir: str | Path = _WORKSPACE
) -> dict[str, Any]:
    """Estimates of a recipe with a cut, without recovery and with distillation, from what is remembered."""
    return tools.estimate_distillation(_situation(model_name, workspace_dir, _OBJECTIVE), recipe)


def compare_models(
    one: str, other: str, model_name: str = _BASE, workspace_dir: str | Path = _WORKSPACE
) -> dict[str, Any]:
    """The difference in KL of two remembered experiments, by their keys, with an interval."""
    return tools.compare_models(_situation(model_name, workspace_dir, _OBJECTIVE), one, other)


def query_experiments(
    settings: dict[str, Any] | None = None, model_name: str = _BASE, workspace_dir: str | Path = _WORKSPACE
) -> dict[str, Any]:
    """What is remembered of recipes with these settings, best first."""
    return tools.query_experiments(_situation(model_name, workspace_dir, _OBJECTIVE), settings)


def get_best_config(
    objective: str = _OBJECTIVE, model_name: str = _BASE, workspace_dir: str | Path = _WORKSPACE
) -> dict[str, Any]:
    """The remembered recipe that serves an objective best."""
    return tools.get_best_config(_situation(model_name, workspace_dir, objective))


def load_peft_model(model_name: str, adapter: str | Path) -> Any:
    """A base in float32 with a LoRA adapter on it, as a `peft.PeftModel`.

    Raises:
        MissingError: base or adapter is not there.
        ModelFileError: one of them is damaged, or comes as code.
    """
    from agentlab.lora.reading import Adapter
    from agentlab.train.base import load_base, quietly

    folder = import_base(find_base(model_name, surroundings(os.environ, Path.cwd()).workspace))
    Adapter(Path(adapter)).close()  # what is damaged is named before a model is loaded
    with quietly():
        from peft import PeftModel

        return PeftModel.from_pretrained(load_base(folder, "fp32", "sdpa").model, str(adapter))
