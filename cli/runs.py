"""`agentlab runs`: what was run, how it went, and going on with it."""

import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from agentlab.errors import UsageError

from .options import Approve, RunsDir, Set, screen_of, with_output
from .runs_mlflow import app as mlflow_app

app = typer.Typer(no_args_is_help=True)
app.add_typer(mlflow_app, name="mlflow")

Ref = Annotated[str, typer.Argument(metavar="RUN", help="Run name, unique prefix, last six digits, or last[:COMMAND].")]


@app.command("list", epilog="Example: agentlab runs list --command nas --json")
@with_output
def list_(
    ctx: typer.Context,
    of: Annotated[str | None, typer.Option("--command", help="Only this command's runs.")] = None,
    status: Annotated[str | None, typer.Option(help="Only runs with this status.")] = None,
    runs_dir: RunsDir = None,
) -> None:
    """List the runs, oldest first."""
    from typing import get_args

    from agentlab.errors import UnknownNameError
    from agentlab.runs import store, views
    from agentlab.runs.manifest import Status

    from .launch import runs_folder, surroundings

    screen = screen_of(ctx)
    if status and status not in get_args(Status):
        raise UnknownNameError("status", status, get_args(Status))
    listing = store.list_runs(runs_folder(surroundings(screen), runs_dir))
    for name, reason in listing.unreadable:
        screen.warn(f"{name} is not listed: {reason}")
    screen.answer("runs list", views.RunList.of(listing, command=of, status=status))


@app.command(epilog="Example: agentlab runs show last")
@with_output
def show(
    ctx: typer.Context,
    run: Ref,
    runs_dir: RunsDir = None,
) -> None:
    """Show a run: status, headline figures, result."""
    from agentlab.commands import COMMANDS, command
    from agentlab.runs import store, views
    from agentlab.runs.store import read_result

    from .launch import reference, resume_command, runs_folder, surroundings

    screen = screen_of(ctx)
    context = surroundings(screen)
    record = store.find(runs_folder(context, runs_dir), run)
    status = record.status
    done = status == "completed"
    result = read_result(record, command(record.manifest.command).result_model()) if done else None
    screen.answer("runs show", views.RunView.of(record, result), run=reference(record, status))
    if not screen.json_mode and status in ("interrupted", "failed"):
        known_command = COMMANDS.get(record.manifest.command)
        approve = known_command is not None and known_command.was_reviewed(record.known_events())
        screen.hint(resume_command(record, context, approve=approve))


@app.command(epilog="Example: agentlab runs compare last 3f2a9c")
@with_output
def compare(
    ctx: typer.Context,
    first: Ref,
    second: Ref,
    runs_dir: RunsDir = None,
) -> None:
    """Compare two runs: differences in config and in results."""
    from agentlab.runs import store

    from .launch import runs_folder, surroundings

    screen = screen_of(ctx)
    folder = runs_folder(surroundings(screen), runs_dir)
    from agentlab.commands import command
    from agentlab.runs.compare import compare as compare_runs

    first_run, second_run = store.find(folder, first), store.find(folder, second)
    screen.answer("runs compare", compare_runs(first_run, second_run, command(first_run.manifest.command).basis()))


@app.command("resume", epilog="Example: agentlab runs resume last --set max_iterations=40")
@with_output
def resume_(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's full name, or last[:COMMAND].")],
    set_: Set = None,
    approve: Approve = False,
    runs_dir: RunsDir = None,
) -> None:
    """Continue an interrupted run, or extend a finished one with a larger budget."""
    from agentlab.commands import command
    from agentlab.config.overrides import parse
    from agentlab.errors import UsageError
    from agentlab.runs import store

    from .launch import resume_run, runs_folder, surroundings, terminal_reviewer

    screen = screen_of(ctx)
    context = surroundings(screen)
    record = store.find_to_resume(runs_folder(context, runs_dir), run)
    if approve and not _asks(record.manifest.command):
        raise UsageError(f"{record.manifest.command} has no trials to approve.", hint="Remove --approve.")
    reviewer = terminal_reviewer(context, screen) if approve else None
    resume_run(
        command(record.manifest.command), record, [parse(text) for text in set_ or ()], screen, context, reviewer
    )


def _asks(command: str) -> bool:
    """Whether a command can ask a person before each trial: then it has the flag itself."""
    from typer.main import get_command

    from .main import build_app

    root: Any = get_command(build_app([command]))
    group = root.commands.get(command)
    return group is not None and any(parameter.name == "approve" for parameter in group.commands["run"].params)


@app.command(epilog="Example: cd $(agentlab runs path last)")
@with_output
def path(
    ctx: typer.Context,
    run: Ref,
    runs_dir: RunsDir = None,
) -> None:
    """Print the folder of a run."""
    from agentlab.runs import store, views

    from .launch import reference, runs_folder, surroundings

    screen = screen_of(ctx)
    record = store.find(runs_folder(surroundings(screen), runs_dir), run)
    screen.answer("runs path", views.PathLine(path=str(record.path)), run=reference(record, record.status))


@app.command(epilog="Example: agentlab runs report last --open")
@with_output
def report(
    ctx: typer.Context,
    run: Ref = "last",
    all_: Annotated[bool, typer.Option("--all", help="Create one index page of all runs instead.")] = False,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    runs_dir: RunsDir = None,
) -> None:
    """Print the path of a run's report, or open it; with --all, create an index of all reports."""
    from agentlab.runs import store, views
    from agentlab.runs.index import write_index

    from .launch import resume_command, runs_folder, surroundings

    screen = screen_of(ctx)
    context = surroundings(screen)
    folder = runs_folder(context, runs_dir)
    if all_:
        page = write_index(folder, store.list_runs(folder).runs, screen.redactor)
    else:
        record = store.find(folder, run)
        page = record.path / "report.html"
        if not page.is_file():
            raise UsageError(
                f"The run {record.id} has no report: it is {record.status}.",
                hint=resume_command(record, context, approve=False),
            )
    screen.answer("runs report", views.PathLine(path=str(page)))
    if open_ and not webbrowser.open(page.as_uri()):
        screen.warn(f"could not start a browser; open {page}")


@app.command(epilog="Example: agentlab runs rm 2026-11-21T14-32-05-nas-3f2a9c --yes")
@with_output
def rm(
    ctx: typer.Context,
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="The runs to remove, by their full names.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    runs_dir: RunsDir = None,
) -> None:
    """Remove run folders for good."""
    import sys

    from agentlab.errors import AgentlabError, UsageError
    from agentlab.runs import store, views

    from .launch import runs_folder, surroundings

    screen = screen_of(ctx)
    folder = runs_folder(surroundings(screen), runs_dir)
    names = list(dict.fromkeys(store.require_whole_name(folder, name) for name in runs))
    store.check_removable(folder, *names)
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise UsageError("Removing runs requires confirmation.", hint="Add --yes.")
        if not typer.confirm(f"Remove {', '.join(names)}?", err=True):
            raise AgentlabError("Nothing was removed.")
    store.remove(folder, *names)
    screen.answer("runs rm", views.Names(names=names))


@app.command(epilog="Example: agentlab runs export last --out result.zip")
@with_output
def export(
    ctx: typer.Context,
    run: Ref,
    out: Annotated[
        Path | None, typer.Option(help="The archive to write; RUN.zip in the current directory by default.")
    ] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Pack a run into one zip file, to send or to keep."""
    from agentlab.runs import store, views
    from agentlab.runs.store import export as export_run

    from .launch import reference, runs_folder, surroundings

    screen = screen_of(ctx)
    record = store.find(runs_folder(surroundings(screen), runs_dir), run)
    with screen.progress():
        target = export_run(record, (out or Path(f"{record.id}.zip")).absolute())
    screen.answer("runs export", views.PathLine(path=str(target)), run=reference(record, record.status))
