"""`agentlab pipeline history`: what pipelines were asked and answered."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from agentlab.errors import StorageError, UnknownNameError, UsageError

from .options import RunsDir, screen_of, with_output

if TYPE_CHECKING:
    from agentlab.pipeline.history.index import PipelineHistory
    from agentlab.pipeline.store import Store
    from agentlab.runs.context import Context

app = typer.Typer(help="List, search, show and export pipeline runs.", no_args_is_help=True)

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run: its name, a unique prefix, or last.")]


def context_and_store(ctx: typer.Context) -> "tuple[Context, Store]":
    """The surroundings, and the workspace's store of answers."""
    from agentlab.pipeline.store import Store

    from .launch import surroundings

    context = surroundings(screen_of(ctx))
    return context, Store(context.workspace.state / "pipeline")


def open_history(ctx: typer.Context, runs_dir: Path | None) -> "PipelineHistory":
    """The history of the runs folder, as it is when the context is entered."""
    from agentlab.pipeline.history.index import PipelineHistory

    from .launch import runs_folder

    context, store = context_and_store(ctx)
    path = context.workspace.state / "pipeline" / "history.sqlite"
    return PipelineHistory(path, runs_folder(context, runs_dir), store, screen_of(ctx).warn)


@app.command("list", epilog="Example: agentlab pipeline history list --status failed")
@with_output
def list_(
    ctx: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only runs with this status.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Number of runs, newest first.")] = 50,
    runs_dir: RunsDir = None,
) -> None:
    """List runs with the beginning of their input."""
    from agentlab.pipeline.history.listing import history_list
    from agentlab.runs.manifest import Status

    if status is not None and status not in get_args(Status):
        raise UnknownNameError("status", status, get_args(Status))
    with open_history(ctx, runs_dir) as history:
        screen_of(ctx).answer("pipeline history list", history_list(history.digests(), status=status, limit=most))


@app.command(epilog='Example: agentlab pipeline history search "blue sky"')
@with_output
def search(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(metavar="WORDS", help="Words that must all occur in an input or an answer.")],
    most: Annotated[int, typer.Option(min=1, help="Number of runs, best match first.")] = 20,
    runs_dir: RunsDir = None,
) -> None:
    """Search the inputs and answers of all runs."""
    from agentlab.pipeline.history.listing import SearchView, quote_query

    if not quote_query(query):
        raise UsageError(f"{query!r} contains no word to search for.", hint="Search for a word with letters or digits.")
    with open_history(ctx, runs_dir) as history:
        screen_of(ctx).answer("pipeline history search", SearchView(query=query, hits=history.search(query, most)))


@app.command(epilog="Example: agentlab pipeline history show last")
@with_output
def show(ctx: typer.Context, run: RunName, runs_dir: RunsDir = None) -> None:
    """Show a run with all its prompts and answers."""
    from agentlab.pipeline.history.export import show as shown
    from agentlab.runs.store import find

    from .launch import runs_folder

    context, store = context_and_store(ctx)
    screen_of(ctx).answer("pipeline history show", shown(find(runs_folder(context, runs_dir), run, "pipeline"), store))


@app.command(epilog="Example: agentlab pipeline history export last --format html --out answer.html")
@with_output
def export(
    ctx: typer.Context,
    run: RunName,
    form: Annotated[str, typer.Option("--format", help="json, md or html.")] = "json",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The file to write; stdout by default.")] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Export a run as one file: JSON for programs, Markdown or HTML for readers."""
    from agentlab.pipeline.history.export import ExportedRun
    from agentlab.pipeline.history.export import export as exported
    from agentlab.runs.atomic import storage_errors, write_text
    from agentlab.runs.store import find

    from .launch import runs_folder

    screen = screen_of(ctx)
    context, store = context_and_store(ctx)
    text = exported(find(runs_folder(context, runs_dir), run, "pipeline"), store, form, screen.redactor)
    if out is None:
        screen.answer("pipeline history export", ExportedRun(form=form, text=text, path=None))
        return
    target = Path.cwd() / out
    if target.exists():
        raise UsageError(f"{target} already exists.", hint="Choose another path with --out.")
    with storage_errors(target):
        if not target.parent.is_dir():
            raise StorageError(f"There is no folder {target.parent}.")
        write_text(target, text)
    screen.answer("pipeline history export", ExportedRun(form=form, text=None, path=str(target)))
