"""Compression of language models for real, within a budget of energy. Light to import.

    from agentlab.compress import run_compression_optimization

    found = run_compression_optimization("smollm2-135m", "smallest with < 5 % loss", carbon_budget="1g")
    found.result.models[0].winner

What an agent does of it step by step, and its tools alone, is in `integrations.deep_agent`; these names are here, too.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from agentlab.compress.result import CompressResult
    from agentlab.session import FinishedRun

__all__ = ["run_compression_optimization"]
_ALWAYS: dict[str, Any] = {}  # what `enable_deep_agent_workflow` asks for


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        steps = import_module("agentlab.integrations.deep_agent")
        if name in steps.__all__:
            return getattr(steps, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
    changes = {**_ALWAYS, **(overrides or {}), **{key: value for key, value in settings.items() if value is not None}}
    caller = "run_compression_optimization"
    return run_to_its_end("compress", resume, config, changes, runs_dir, caller, verbose=verbose)
