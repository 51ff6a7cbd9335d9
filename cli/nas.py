"""`agentlab nas`: an agent searches architectures of a forecaster."""

from pathlib import Path
from typing import Annotated

import typer

from .options import CONFIG, Contract, DefaultsToRun, InOrder, screen_of, with_contract

app = typer.Typer(cls=DefaultsToRun, help="Search the architecture of the Informer forecaster on your series.")

_EXAMPLES = """Examples:

  # seconds, to see what it does

  agentlab nas demo

  # hourly weather of New York; nothing else is needed

  agentlab nas --max-iterations 20

  # your own series

  agentlab nas --data my.csv --date-column date --target load --horizon 24

  # without a language model: the classical optimiser alone

  agentlab nas etth1 --data ETTh1.csv --set llm=none

  # go on with a finished run

  agentlab nas --resume last --max-iterations 40
"""


@app.command("run", cls=InOrder, epilog=_EXAMPLES)
@with_contract
def run(
    ctx: typer.Context,
    contract: Contract,
    max_iterations: Annotated[
        int | None, typer.Option(min=1, help="Trials in all, the first (the default) included.", rich_help_panel=CONFIG)
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A CSV file with a date column.", rich_help_panel=CONFIG)
    ] = None,
    date_column: Annotated[str | None, typer.Option(help="Its date column.", rich_help_panel=CONFIG)] = None,
    target: Annotated[str | None, typer.Option(help="The column to forecast.", rich_help_panel=CONFIG)] = None,
    horizon: Annotated[int | None, typer.Option(min=1, help="Steps to forecast.", rich_help_panel=CONFIG)] = None,
) -> None:
    """Search the architecture of the Informer forecaster on your series.

    An agent proposes what to try next, each trial is trained and measured on validation data, and the report says
    how the winner compares with simple forecasts and whether the agent helped.
    """
    from .launch import launch

    overrides = contract.overrides(
        **{
            "max_iterations": ("--max-iterations", max_iterations),
            # a flag's path starts at the current folder, a config's at the workspace
            "data.path": ("--data", str(data.absolute()) if data else None),
            "data.date_column": ("--date-column", date_column),
            "data.target": ("--target", target),
            "data.horizon": ("--horizon", horizon),
        }
    )
    launch("nas", contract, overrides, screen_of(ctx))
