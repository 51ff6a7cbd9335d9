"""A whole run from Python, with or without an agent. Light to import."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from agentlab.compress.result import CompressResult
    from agentlab.session import FinishedRun

_workflow: dict[str, Any] = {}  # overrides of every run of this process; see `enable_deep_agent_workflow`


def enable_deep_agent_workflow(model_name: str | Mapping[str, Any] = "embedded") -> None:
    """From now on `run_compression_optimization` plans with an agent of this language model, in this process."""
    _workflow.update(planner="agent", llm=planner_llm(model_name))


def planner_llm(name: str | Mapping[str, Any]) -> str | Mapping[str, Any]:
    """The key `llm` of an agent's language model; a Claude model is asked with the key in ANTHROPIC_API_KEY."""
    if not isinstance(name, str) or not name.startswith("claude-"):
        return name
    return {
        "providers": {"anthropic": {"kind": "anthropic", "api_key": "${ANTHROPIC_API_KEY}"}},
        "models": {"planner": {"provider": "anthropic", "id": name, "tier": "full"}},
        "roles": {"primary": ["planner"]},
    }


def run_compression_optimization(
    model_name: str | None = None,
    objective: str | None = None,
    carbon_budget: float | str | None = None,
    *,
    resume: str | None = None,
    config: "str | Path | Mapping[str, Any] | None" = None,
    overrides: Mapping[str, Any] | None = None,
    runs_dir: "str | Path | None" = None,
    verbose: bool = False,
) -> "FinishedRun[CompressResult]":
    """Compress a model, as `agentlab compress` does, and return what came of it.

    Args:
        model_name: the base: a model's name, or a checkpoint folder; None leaves it to the config.
        objective: what for, such as "maximise speed with < 2 % loss".
        carbon_budget: CO2 at most: "0.5g", or a number in kg.
        resume: a run's name, or `last`; None starts a new one.
        config: a preset's name, a YAML file or what it would hold; None is the default preset.
        overrides: dotted config key -> value, as with `--set`.
        runs_dir: the folder that holds run folders; None is `runs` in the workspace.
        verbose: tell on stderr how it goes, line by line.

    Raises:
        UsageError: a bad config, model or text; on resume, a change of more than the budget.
        MissingError: a file, key or package that has to be there first.
        GateError: no recipe reaches the objective; the run has its report all the same.
        KeyboardInterrupt: stopped; the run is kept.
    """
    from agentlab.session import run_to_its_end

    settings = {"base": model_name, "goal": objective, "budget.carbon": carbon_budget}
    changes = {**_workflow, **(overrides or {}), **{key: value for key, value in settings.items() if value is not None}}
    caller = "run_compression_optimization"
    return run_to_its_end("compress", resume, config, changes, runs_dir, caller, verbose=verbose)
