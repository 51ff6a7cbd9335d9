"""`agentlab runs mlflow`: runs and their trials in MLflow."""

from typing import Annotated, Literal

import typer

from agentlab.errors import UsageError

from .options import RunsDir, screen_of, with_output

app = typer.Typer(help="Log runs and their trials to MLflow, and query them (extra: mlflow).", no_args_is_help=True)

Store = Annotated[
    str | None,
    typer.Option(metavar="FILE|URI", help="An SQLite file, or a tracking URI; mlflow.db in .agentlab by default."),
]
Settings = Annotated[
    list[str] | None, typer.Argument(metavar="SETTING=VALUE...", help="Settings that the trials must have.")
]
Of = Annotated[str | None, typer.Option("--command", help="Only this command's trials.")]


@app.command(epilog="Example: agentlab runs mlflow log last:nas")
@with_output
def log(
    ctx: typer.Context,
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Run name, unique prefix, last six digits, or last[:COMMAND].")
    ],
    store: Store = None,
    runs_dir: RunsDir = None,
) -> None:
    """Log a run, with a nested run for each trial.

    Logging an unchanged run again adds no copy; a run that has grown since then replaces its logged copy.
    """
    from agentlab.integrations import mlflow
    from agentlab.runs.store import find

    from .launch import reference, runs_folder, surroundings

    screen = screen_of(ctx)
    record = find(runs_folder(surroundings(screen), runs_dir), run)
    with screen.progress() as bar:
        bar.update(f"logging {record.id}")
        logged = mlflow.log_run(record, _store(ctx, store))
    screen.answer("runs mlflow log", logged, run=reference(record, record.status))


@app.command(epilog="Example: agentlab runs mlflow query --command nas model.e_layers=2")
@with_output
def query(ctx: typer.Context, settings: Settings = None, of: Of = None, store: Store = None) -> None:
    """List the logged trials."""
    from agentlab.integrations import mlflow

    screen_of(ctx).answer("runs mlflow query", mlflow.query(_store(ctx, store), of, _settings(settings)))


@app.command(epilog="Example: agentlab runs mlflow best --command compress --metric size")
@with_output
def best(
    ctx: typer.Context,
    settings: Settings = None,
    metric: Annotated[
        str, typer.Option(metavar="NAME", help="A metric of the trials; value is the objective of the search.")
    ] = ("value"),
    direction: Annotated[Literal["lower", "higher"], typer.Option(help="Which direction is better.")] = "lower",
    of: Of = None,
    store: Store = None,
) -> None:
    """Show the best finished trial and its parameters, for each group of trials measured on the same basis."""
    from agentlab.integrations import mlflow

    best_trials = mlflow.best(_store(ctx, store), of, metric, direction, _settings(settings))
    screen_of(ctx).answer("runs mlflow best", best_trials)


def _settings(texts: list[str] | None) -> dict[str, str]:
    if wrong := [text for text in texts or () if "=" not in text]:
        raise UsageError(f"{wrong[0]!r} is not KEY=VALUE.", hint="Write, for example, model.e_layers=2.")
    return dict(text.split("=", 1) for text in texts or ())


def _store(ctx: typer.Context, store: str | None) -> str:
    from .launch import surroundings

    return store or str(surroundings(screen_of(ctx)).workspace.state / "mlflow.db")
