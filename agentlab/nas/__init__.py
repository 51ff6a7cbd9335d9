"""Architecture search for the Informer forecaster. Light to import."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from agentlab.nas.result import NasResult
    from agentlab.session import FinishedRun

__all__ = ["run_nas_optimization"]


def run_nas_optimization(
    max_iterations: int | None = 20,
    resume: str | None = None,
    *,
    config: "str | Path | None" = None,
    overrides: Mapping[str, Any] | None = None,
    runs_dir: "str | Path | None" = None,
    verbose: bool = False,
) -> "FinishedRun[NasResult]":
    """Search the architecture of a forecaster, as `agentlab nas` does, and return what was found.

        from agentlab.nas import run_nas_optimization

        study = run_nas_optimization(10, config="demo", overrides={"llm": "none", "training.epochs": 2})
        study.result.winner.params          # the best settings
        study.result.winner.test_mse        # their error on rows that nobody saw before
        study.path / "report.html"          # the run folder: report, plots, models, every event
        run_nas_optimization(20, resume=study.id)    # ten more trials

    Ctrl-C leaves a run that can be gone on with: `run_nas_optimization(20, resume="last")`.

    Args:
        max_iterations: trials in all, those before a resume included; None leaves it to the config.
        resume: a run's name, or `last` for the last run of this kind; None starts a new one. A complete run with as
            many trials is not searched again: its result is returned.
        config: a preset's name or a YAML file; None is the default preset.
        overrides: dotted config key -> value, as with `--set`.
        runs_dir: the folder that holds run folders; None is `runs` in the workspace, which is the environment's
            AGENTLAB_HOME or the current folder. A `.env` in the workspace is read as on the command line.
        verbose: tell on stderr how it goes, line by line.

    Raises:
        UsageError: a bad config, data file or name; on resume, a change of more than the budget.
        MissingError: a file or key that has to be there first.
        AgentlabError: every trial failed; the message says why the last one did.
        KeyboardInterrupt: stopped; the run is kept.
    """
    from agentlab.session import run_to_its_end

    changes = dict(overrides or {}) | ({} if max_iterations is None else {"max_iterations": max_iterations})
    return run_to_its_end("nas", resume, config, changes, runs_dir, "run_nas_optimization", verbose=verbose)
