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
    import os
    from pathlib import Path

    from agentlab.commands import command
    from agentlab.config.overrides import Override
    from agentlab.errors import UsageError
    from agentlab.runs.redact import Redactor
    from agentlab.runs.store import find_to_resume
    from agentlab.session import FinishedRun, Lines, Watch, begin, go_on, stderr_line, surroundings

    if resume and config is not None:
        raise UsageError(
            "A resumed run has its own config; another cannot be given with it.",
            hint="Drop `config`; a larger budget is given by `max_iterations`.",
        )
    context = surroundings(os.environ, Path.cwd())
    folder = Path.cwd() / runs_dir if runs_dir else context.workspace.runs
    given = [Override(str(key), value, "overrides") for key, value in (overrides or {}).items()]
    if max_iterations is not None:
        given.append(Override("max_iterations", max_iterations, "max_iterations"))
    if resume:
        record = find_to_resume(folder, "last:nas" if resume == "last" else resume)
        session = go_on(command("nas"), record, given, context=context)
    else:
        session = begin("nas", config, given, context=context, runs_dir=folder, argv=["run_nas_optimization"])
    if isinstance(session, FinishedRun):
        return session
    redactor = Redactor.of(context.env)
    if not verbose:
        return session.carry_out(Watch(redactor))
    line = stderr_line(redactor)
    return session.carry_out(Watch(redactor, sinks=[Lines(session.command.narrate_function(), line)], line=line))
