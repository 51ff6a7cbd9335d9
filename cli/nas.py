"""`agentlab nas`: an agent searches architectures of a forecaster."""

from pathlib import Path
from typing import Annotated, Any

import typer

from agentlab.errors import UsageError

from .options import (
    CONFIG,
    RUN,
    Approve,
    CommonOptions,
    DefaultsToRun,
    InOrder,
    RunsDir,
    screen_of,
    with_common_options,
    with_output,
)

app = typer.Typer(cls=DefaultsToRun)

_EXAMPLES = """Examples:

  # takes seconds, to see what it does

  agentlab nas demo

  # hourly weather in New York; nothing else is needed

  agentlab nas --max-iterations 20

  # your own series

  agentlab nas --data my.csv --date-column date --target load --horizon 24

  # without a language model: the classical optimiser alone

  agentlab nas etth1 --data ETTh1.csv --set llm=none

  # two trials at a time; look at every proposal before it is trained

  agentlab nas --workers 2 --approve

  # does the language model help? eight studies with it and eight without

  agentlab nas demo --control full

  # extend a finished run

  agentlab nas --resume last --max-iterations 40

  # forecast with the winner: the steps after the last row of a file

  agentlab nas predict last --input my.csv --output forecast.csv
"""

# What `train` sets: one trial, one training of it, nobody who proposes.
_TRAIN_OVERRIDES = {"max_iterations": 1, "llm": "none", "space": {}, "evaluator.repeats": 0, "finals.count": 0}

Data = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A CSV file with a date column.", rich_help_panel=CONFIG)
]
DateColumn = Annotated[str | None, typer.Option(help="The file's date column.", rich_help_panel=CONFIG)]
Target = Annotated[str | None, typer.Option(help="The column to forecast.", rich_help_panel=CONFIG)]
Horizon = Annotated[int | None, typer.Option(min=1, help="Steps to forecast.", rich_help_panel=CONFIG)]
Forecaster = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run (its name, a unique prefix, or `last`), or the path to an exported folder."
    ),
]


@app.command("run", cls=InOrder, epilog=_EXAMPLES)
@with_common_options("max_cost", "control")
def run(
    ctx: typer.Context,
    common: CommonOptions,
    max_iterations: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Total trials, including the default one; with --control full, training runs per study.",
            rich_help_panel=CONFIG,
        ),
    ] = None,
    data: Data = None,
    date_column: DateColumn = None,
    target: Target = None,
    horizon: Horizon = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Parallel trials, each in its own process.", rich_help_panel=RUN)
    ] = None,
    control_seeds: Annotated[
        int | None, typer.Option(min=6, help="Pairs of studies with --control full.", rich_help_panel=CONFIG)
    ] = None,
    approve: Approve = False,
) -> None:
    """Search for an Informer forecaster architecture on your time series.

    An agent proposes what to try next, each trial is trained and measured on validation data, and the report says
    how the winner compares with simple forecasts and whether the agent helped.
    """
    from .launch import launch

    if control_seeds is not None and common.control != "full":
        raise UsageError(
            "--control-seeds sets the number of pairs of studies, which are run only with --control full.",
            hint="Add --control full.",
        )
    overrides = common.overrides(
        **{
            "max_iterations": ("--max-iterations", max_iterations),
            "workers": ("--workers", workers),
            "control_seeds": ("--control-seeds", control_seeds),
            **_series(data, date_column, target, horizon),
        }
    )
    launch("nas", common, overrides, screen_of(ctx), approve=approve)


def _series(
    data: Path | None, date_column: str | None, target: str | None, horizon: int | None
) -> dict[str, tuple[str, Any]]:
    """Config keys of the flags that name a series; a flag's path starts at the current folder, a config's does not."""
    return {
        "data.path": ("--data", str(data.absolute()) if data else None),
        "data.date_column": ("--date-column", date_column),
        "data.target": ("--target", target),
        "data.horizon": ("--horizon", horizon),
    }


@app.command(
    cls=InOrder, epilog="Example: agentlab nas train etth1 --data ETTh1.csv --set training.epochs=10 --tag test"
)
@with_common_options()
def train(
    ctx: typer.Context,
    common: CommonOptions,
    tag: Annotated[
        str | None, typer.Option(help="A word to add to the name of the run folder.", rich_help_panel=RUN)
    ] = None,
    data: Data = None,
    date_column: DateColumn = None,
    target: Target = None,
    horizon: Horizon = None,
) -> None:
    """Train one configuration, score it and export it, without any search.

    CONFIG is a preset, a file, or the config_used.yaml of an earlier trial.
    """
    from agentlab.config.overrides import Override

    from .launch import launch

    overrides = common.overrides(**_series(data, date_column, target, horizon))
    if common.resume is None:  # a run's own config says it already
        overrides += [Override(key, value, "nas train") for key, value in _TRAIN_OVERRIDES.items()]
    launch("nas", common, overrides, screen_of(ctx), label=f"nas-{tag}" if tag else None)


@app.command("predict", epilog="Example: agentlab nas predict last --input my.csv --output forecast.csv")
@with_output
def predict_(
    ctx: typer.Context,
    run: Forecaster,
    data: Annotated[
        Path, typer.Option("--input", metavar="FILE", help="A CSV file with the columns the model was trained on.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "--out", metavar="FILE", help="The CSV file to write; stdout by default.")
    ] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Forecast with the winner of a search: the steps that follow the last row of a file."""
    from agentlab.nas.export import find_artefact
    from agentlab.nas.predict import predict

    from .launch import reference, runs_folder, surroundings

    screen = screen_of(ctx)
    source, record = find_artefact(run, runs_folder(surroundings(screen), runs_dir), Path.cwd())
    with screen.progress():
        answer = predict(source, Path.cwd() / data, Path.cwd() / output if output else None)
    for note in answer.notes:
        screen.say(note)
    screen.answer("nas predict", answer, run=reference(record, record.status) if record else None)


@app.command(epilog="Example: agentlab nas export last --out forecaster")
@with_output
def export(
    ctx: typer.Context,
    run: Forecaster,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to create.")],
    runs_dir: RunsDir = None,
) -> None:
    """Export the winner of a search to a standalone folder, which can forecast without the run."""
    from agentlab.nas.export import ExportAnswer, export_artefact, find_artefact

    from .launch import reference, runs_folder, surroundings

    screen = screen_of(ctx)
    source, record = find_artefact(run, runs_folder(surroundings(screen), runs_dir), Path.cwd())
    answer = ExportAnswer.of(export_artefact(source, Path.cwd() / out))
    screen.answer("nas export", answer, run=reference(record, record.status) if record else None)
    screen.hint(answer.command)
