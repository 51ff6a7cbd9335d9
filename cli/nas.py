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

app = typer.Typer(cls=DefaultsToRun, help="Search the architecture of the Informer forecaster on your series.")

_EXAMPLES = """Examples:

  # a demo, takes seconds

  agentlab nas demo

  # hourly weather of New York (embedded data)

  agentlab nas --max-iterations 20

  # your own series

  agentlab nas --data my.csv --date-column date --target load --horizon 24

  # with the classical optimiser alone, no language model

  agentlab nas etth1 --data ETTh1.csv --set llm=none

  # two trials at a time; approve every proposal before it is trained

  agentlab nas --workers 2 --approve

  # does the language model help? eight studies with it and eight without

  agentlab nas demo --control full

  # continue a finished run

  agentlab nas --resume last --max-iterations 40

  # forecast the steps after the last row of a file with the winner

  agentlab nas predict last --input my.csv --output forecast.csv
"""

# What `train` sets: one trial, one training of it, nobody who proposes.
_TRAIN_OVERRIDES = {"max_iterations": 1, "llm": "none", "space": {}, "evaluator.repeats": 0, "finals.count": 0}

Data = Annotated[Path | None, typer.Option(metavar="FILE", help="CSV file with a date column.", rich_help_panel=CONFIG)]
DateColumn = Annotated[str | None, typer.Option(help="Name of the date column.", rich_help_panel=CONFIG)]
Target = Annotated[str | None, typer.Option(help="Column to forecast.", rich_help_panel=CONFIG)]
Horizon = Annotated[int | None, typer.Option(min=1, help="Number of steps to forecast.", rich_help_panel=CONFIG)]
Forecaster = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Run (its name, a unique prefix, or last), or path of an exported folder."),
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
            help="Total number of trials, the default one included; with --control full, trainings per study.",
            rich_help_panel=CONFIG,
        ),
    ] = None,
    data: Data = None,
    date_column: DateColumn = None,
    target: Target = None,
    horizon: Horizon = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Trials at a time, each in its own process.", rich_help_panel=RUN)
    ] = None,
    control_seeds: Annotated[
        int | None, typer.Option(min=6, help="Pairs of studies with --control full.", rich_help_panel=CONFIG)
    ] = None,
    approve: Approve = False,
) -> None:
    """Search the architecture of the Informer forecaster on your series.

    An agent proposes what to try next, and each trial is trained and scored on validation data. The report says how
    the winner compares with baselines and whether the agent helped.
    """
    from .launch import launch

    if control_seeds is not None and common.control != "full":
        raise UsageError("--control-seeds requires --control full.", hint="Add --control full.")
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
    tag: Annotated[str | None, typer.Option(help="Label in the name of the run folder.", rich_help_panel=RUN)] = None,
    data: Data = None,
    date_column: DateColumn = None,
    target: Target = None,
    horizon: Horizon = None,
) -> None:
    """Train, score and export a single configuration, without a search.

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
        Path, typer.Option("--input", metavar="FILE", help="CSV file with the columns the model was trained on.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "--out", metavar="FILE", help="CSV file to write; default: stdout.")
    ] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Forecast the steps after the last row of a file with the winner of a search."""
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
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the exported model.")],
    runs_dir: RunsDir = None,
) -> None:
    """Copy the winner of a search into a standalone folder that forecasts without the run."""
    from agentlab.nas.export import ExportAnswer, export_artefact, find_artefact

    from .launch import reference, runs_folder, surroundings

    screen = screen_of(ctx)
    source, record = find_artefact(run, runs_folder(surroundings(screen), runs_dir), Path.cwd())
    answer = ExportAnswer.of(export_artefact(source, Path.cwd() / out))
    screen.answer("nas export", answer, run=reference(record, record.status) if record else None)
    screen.hint(answer.command)
